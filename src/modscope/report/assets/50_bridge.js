// Bridge: do masks and modules agree?

const controlOf = (run, chosen) => run.bridge.controls.some(control => control.id === chosen) ? chosen : run.bridge.controls[run.bridge.controls.length - 1].id;

DRAWINGS.set("alignment", (run, width, state) => {
  if (!run.bridge || !run.bridge.cells.length) return null;
  const control = controlOf(run, state.control), cells = run.bridge.cells.filter(cell => cell.control === control), n = run.modules.length;
  const x0 = Math.min(width * 0.38, Math.max(40, widest(run.tasks.map(task => task.label)) + 14)), cellWidth = Math.min(110, (width - x0 - 4) / Math.max(1, n)), height = 44, top = 54, parts = [];
  const most = Math.max(0.2, ...RUNS.filter(r => r.bridge).flatMap(r => r.bridge.cells).map(cell => Math.abs(cell.log_odds || 0))), units = Math.max(1, ...RUNS.flatMap(r => r.modules).map(module => module.n));
  parts.push(text(x0 - 10, top - 6, "units", "end m"));
  run.modules.forEach((module, m) => {
    const h = 32 * module.n / units, left = x0 + m * cellWidth;
    parts.push(group(marked(run, m), filled(m, fill => rect(left + cellWidth * 0.2, top - 2 - h, cellWidth * 0.6, h, {fill})), text(left + cellWidth / 2, top - 6 - h, cellWidth >= 22 ? thousands(module.n) : "", "mid m")), badge(run, m, left + cellWidth / 2, top + run.tasks.length * height + 16, Math.min(18, cellWidth - 1)));
  });
  run.tasks.forEach((task, t) => {
    parts.push(text(x0 - 10, top + t * height + 26, fitted(task.label, x0 - 12), "end ink"));
    for (const cell of cells.filter(item => item.task === task.id)) {
      const left = x0 + cell.module * cellWidth, y = top + t * height, value = cell.log_odds, share = value === null ? 0 : Math.min(1, Math.abs(value) / most), sure = isSure(cell.p_adjusted);
      parts.push(group(marked(run, cell.module), rect(left + 1, y + 1, cellWidth - 2, height - 2, {rx: 2, fill: mix(value < 0 ? "--neg" : "--pos", share, "--mid")}),
        cellWidth >= 26 && text(left + cellWidth / 2, y + (sure ? 22 : 26), value === null ? "–" : (value > 0 ? "+" : "") + fixed(value, cellWidth < 38 ? 1 : 2), `mid t12 ${onCell(share)}`), sure && circle(left + cellWidth / 2, y + height - 10, 2.4, {class: onCell(share)})));
    }
  });
  const y = top + run.tasks.length * height + 44, x1 = x0 + Math.min(200, n * cellWidth), steps = 40;
  for (let i = 0; i < steps; i += 1) { const v = -1 + 2 * i / (steps - 1); parts.push(rect(x0 + (x1 - x0) * i / steps, y, (x1 - x0) / steps + 0.6, 8, {fill: mix(v < 0 ? "--neg" : "--pos", Math.abs(v), "--mid")})); }
  parts.push(text(x0, y + 22, fixed(-most, 1), "m"), text((x0 + x1) / 2, y + 22, "0", "mid m"), text(x1, y + 22, `+${fixed(most, 1)} log-odds`, "end m"));
  if (width > x1 + 150) parts.push(circle(x1 + 20, y + 4, 2.4, {fill: "var(--ink)"}), text(x1 + 28, y + 8, "corrected p ≤ 0.05", "m"));
  return drawing(width, y + 28, parts);
});

DRAWINGS.set("agreement", (run, width) => {
  if (!run.bridge || !run.bridge.agreement.length) return null;
  const tests = RUNS.filter(r => r.bridge).flatMap(r => r.bridge.agreement.map(item => item.test)), marks = tests.flatMap(test => [test.effect, test.low, test.high, test.null_low, test.null_high, test.null_mean]).filter(v => v !== null);
  const margin = 0.06 * (Math.max(...marks) - Math.min(...marks)) || 0.1, low = Math.min(...marks) - margin, high = Math.max(...marks) + margin, x = scale(low, high, 4, width - 44), values = ticksIn(low, high, width), digits = decimals(values), step = 42, parts = [];
  const end = run.bridge.agreement.length * step;
  parts.push(values.filter(v => x(v) > 16).map(v => [line(x(v), 4, x(v), end, v === 0 ? "ax" : "gr"), text(x(v), end + 14, fixed(v, digits), "mid m")]));
  run.bridge.agreement.forEach((item, i) => {
    const y = 28 + i * step, {test} = item, sure = isSure(test.p_adjusted === null ? test.p : test.p_adjusted), tint = sure ? "var(--accent)" : "var(--ink-3)", label = (run.bridge.controls.find(control => control.id === item.control) || {label: item.control}).label;
    parts.push(text(4, y - 13, fitted(`held fixed: ${label}`, width - 8), "ink halo"));
    if (test.null_low !== null && test.null_high !== null) parts.push(rect(x(test.null_low), y - 7, Math.max(2, x(test.null_high) - x(test.null_low)), 14, {fill: "var(--null)", rx: 2}));
    if (test.low !== null && test.high !== null) parts.push(line(x(test.low), y, x(test.high), y, null, {stroke: tint, "stroke-width": 2}));
    parts.push(circle(x(test.effect), y, 4.5, {fill: sure ? tint : "var(--bg)", stroke: tint, "stroke-width": 1.5}), text(width, y + 4, fixed(test.effect), sure ? "end b" : "end m"));
  });
  return drawing(width, end + 20, parts);
});
