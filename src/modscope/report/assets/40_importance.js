// Importance: what is lost without part of a module.

const SURE = 0.05;
const isSure = p => p !== null && p !== undefined && p <= SURE;

const lesionRows = run => {  // one entry per module and layer, with a test per task
  const rows = new Map();
  for (const row of run.lesions.rows) {
    const name = `${row.module}|${row.layer === null ? "" : "." + row.layer}`;
    if (!rows.has(name)) rows.set(name, {module: row.module, layer: row.layer, n: row.n_units, tests: new Map()});
    rows.get(name).tests.set(row.task, row);
  }
  const depth = row => row.layer === null ? run.layers.length : run.layers.findIndex(layer => layer.id === row.layer);
  return [...rows.values()].sort((a, b) => a.module - b.module || depth(a) - depth(b));
};

DRAWINGS.set("lesions", (run, width) => {
  if (!run.lesions || !run.lesions.rows.length) return null;
  const rows = lesionRows(run), tasks = run.tasks, layerWords = rows.map(row => layerLabel(run, row.layer)), small = width < 620;
  const x0 = Math.min(width * 0.34, 28 + widest(layerWords) + (small ? 10 : 66)), column = (width - x0) / tasks.length;
  const cell = Math.min(small ? 42 : 60, column), hasStrips = column - cell > 70, height = 24, top = 42, parts = [];
  const all = run.lesions.rows, most = Math.max(0.02, ...all.map(row => Math.max(row.drop, row.null_high || 0))), least = Math.min(0, ...all.map(row => Math.min(row.drop, row.null_low || 0)));
  const values = ticksIn(100 * least, 100 * most, column - cell - 36), bottoms = rows.map((_, i) => top + i * height + rows.slice(0, i + 1).filter((row, j) => j && row.module !== rows[j - 1].module).length * 8);
  const end = bottoms[rows.length - 1] + height;
  if (!small) parts.push(text(x0 - 10, top - 8, "units", "end m"));
  tasks.forEach((task, t) => {
    const left = x0 + t * column, s0 = left + cell + 14, s1 = left + column - 22, x = scale(100 * least, 100 * most, s0, s1);
    parts.push(text(left, 12, fitted(`${task.label}: points lost`, column - 8, 12, 600), "b t12"));
    if (hasStrips) parts.push(values.map(v => [line(x(v), top, x(v), end, v === 0 ? "ax" : "gr"), text(x(v), top - 8, fixed(v, decimals(values)), "mid m")]));
    rows.forEach((row, i) => {
      const test = row.tests.get(task.id), y = bottoms[i];
      if (!test) return;
      const share = Math.pow(Math.max(0, test.drop) / most, 0.7), sure = isSure(test.p_adjusted), at = group(clickable(run, row.module));
      at.append(rect(left + 0.5, y + 0.5, cell - 1, height - 1, {rx: 2, fill: mix("--les-hi", share)}), text(left + cell / 2, y + 16, fixed(100 * test.drop, 1), `mid ${onCell(share)}`));
      if (!hasStrips && sure) at.append(circle(left + cell - 5, y + 5, 1.8, {fill: "var(--ink)"}));
      if (hasStrips) {
        if (test.null_low !== null && test.null_high !== null) at.append(rect(x(100 * test.null_low), y + 5, Math.max(2, x(100 * test.null_high) - x(100 * test.null_low)), height - 10, {fill: "var(--null)", rx: 2}));
        if (test.null_mean !== null) at.append(line(x(100 * test.null_mean), y + 5, x(100 * test.null_mean), y + height - 5, null, {stroke: "var(--null-2)"}));
        at.append(circle(x(100 * test.drop), y + height / 2, 4.5, {fill: sure ? colour(row.module) : "var(--bg)", stroke: colour(row.module), "stroke-width": 2}));
      }
      parts.push(at);
    });
  });
  rows.forEach((row, i) => parts.push(badge(run, row.module, 9, bottoms[i] + 12, 17), text(26, bottoms[i] + 16, fitted(layerWords[i], x0 - (small ? 32 : 78)), row.layer === null ? "b" : "ink"), !small && text(x0 - 10, bottoms[i] + 16, thousands(row.n), "end m")));
  return drawing(width, end + 4, parts);
});

const apart = (tags, gap, x0, x1, y0, y1) => {  // push letters apart until none covers another
  for (let turn = 0; turn < 120; turn += 1) {
    tags.forEach((a, i) => tags.slice(i + 1).forEach(b => {
      const dx = b.x - a.x || 0.1, dy = b.y - a.y || 0.07, distance = Math.hypot(dx, dy);
      if (distance >= gap) return;
      const push = (gap - distance) / 2 / distance;
      a.x -= dx * push; a.y -= dy * push; b.x += dx * push; b.y += dy * push;
    }));
    for (const tag of tags) { tag.x = Math.max(x0, Math.min(x1, tag.x)); tag.y = Math.max(y0, Math.min(y1, tag.y)); }
  }
  return tags;
};

DRAWINGS.set("dissociation", (run, width) => {
  if (!run.lesions || !run.lesions.rows.length || run.tasks.length < 2) return null;
  const [first, second] = run.tasks, size = Math.min(width - 44, 340), x0 = 40, y1 = size + 8, x1 = x0 + size;
  const rows = lesionRows(run), points = (rows.some(row => row.layer !== null) ? rows.filter(row => row.layer !== null) : rows).filter(row => row.tests.has(first.id) && row.tests.has(second.id)).map(row => ({...row, a: row.tests.get(first.id), b: row.tests.get(second.id)}));
  const most = Math.max(2, ...RUNS.filter(r => r.lesions).flatMap(r => r.lesions.rows).map(row => 100 * row.drop)) * 1.06, least = Math.min(0, ...RUNS.filter(r => r.lesions).flatMap(r => r.lesions.rows).map(row => 100 * row.drop));
  const x = scale(least, most, x0, x1), y = scale(least, most, y1, 8), values = ticksIn(least, most, size), digits = decimals(values), parts = [];
  parts.push(linesAcross(x0, x1, values, y, v => fixed(v, digits)), axisBelow(x0, x1, y1, values, x, v => fixed(v, digits)), line(x(least), y(least), x(most), y(most), null, {stroke: "var(--rule-2)", "stroke-dasharray": "3 3"}),
    text((x0 + x1) / 2, y1 + 34, fitted(`points lost, ${first.label}`, size), "mid m"), text(0, 0, fitted(`points lost, ${second.label}`, size), "mid m", {transform: `translate(10,${round((8 + y1) / 2)}) rotate(-90)`, x: null, y: null}));
  for (const p of points) if (p.a.null_mean !== null && p.b.null_mean !== null) parts.push(circle(x(100 * p.a.null_mean), y(100 * p.b.null_mean), 2.4, {fill: "var(--null-2)", "fill-opacity": 0.6}));
  const at = p => ({px: x(100 * p.a.drop), py: y(100 * p.b.drop)}), isNamed = p => isSure(p.a.p_adjusted) || isSure(p.b.p_adjusted);
  for (const p of points.filter(p => !isNamed(p))) parts.push(circle(at(p).px, at(p).py, 3, {fill: "var(--bg)", stroke: colour(p.module), "stroke-width": 1.5, ...marked(run, p.module)}));
  const named = points.filter(isNamed).map(p => ({...p, ...at(p), x: at(p).px + 4, y: at(p).py - 4}));
  const tags = apart(named, 18, x0 + 9, x1 - 9, 12, y1 - 9);
  for (const tag of tags) parts.push(group(marked(run, tag.module), line(tag.px, tag.py, tag.x, tag.y, null, {stroke: colour(tag.module), "stroke-width": 0.75}), circle(tag.px, tag.py, 3, {fill: colour(tag.module)})));
  for (const tag of tags) parts.push(badge(run, tag.module, tag.x, tag.y, 15));
  return drawing(width, y1 + 40, parts);
});
