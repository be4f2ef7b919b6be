// Function: what the masks keep.

const legendOf = (entries, x0, width, bracket = "") => {  // coloured squares with words, on as many lines as they need
  const parts = [];
  let x = x0, y = 0;
  const take = room => { if (x + room > width && x > x0) { x = x0; y += 18; } const here = x; x += room + 14; return here; };
  for (const [fill, words] of entries) {
    const shown = fitted(words, width - x0 - 20), here = take(measured(shown) + 16);
    parts.push(rect(here, y + 2, 10, 10, {rx: 2, fill: `var(${fill})`}), text(here + 15, y + 11, shown));
  }
  if (bracket) {
    const here = take(measured(bracket) + 22);
    parts.push(S("path", {d: `M${round(here)} ${y + 3}v5h14v-5`, fill: "none", stroke: "var(--ink)"}), text(here + 19, y + 11, bracket));
  }
  return {parts, bottom: y + 16};
};

const pairOf = (run, chosen) => {
  const pairs = [...new Set(run.masks.share.map(row => JSON.stringify(row.pair)))];
  return pairs.includes(chosen) ? chosen : pairs[0];
};
const shareRows = (run, chosen) => run.masks.share.filter(row => JSON.stringify(row.pair) === pairOf(run, chosen));

DRAWINGS.set("share", (run, width, state) => {
  if (!run.masks || !run.masks.share.length) return null;
  const rows = shareRows(run, state.pair), small = width < 460, pair = rows[0].pair.map(id => taskLabel(run, id));
  const labels = rows.map(row => layerLabel(run, row.layer)), x0 = Math.min(width * 0.32, widest(labels) + 14), x1 = width - (small ? 0 : 84);
  const x = scale(0, 1, x0, x1), barHeight = 26, step = 56;
  const entries = [["--tA", `only ${pair[0]}`], ["--tS", "shared"], ["--tB", `only ${pair[1]}`]], bracket = rows.some(row => row.random) ? "shared by random masks" : "";
  const legend = legendOf(entries, x0, width, bracket), parts = legend.parts, top = legend.bottom + 14;
  rows.forEach((row, i) => {
    const yRow = top + i * step, ends = [0, row.a, row.a + row.shared, 1].map(x);
    parts.push(text(x0 - 10, yRow + 17, fitted(labels[i], x0 - 10), row.layer === null ? "end b" : "end ink"));
    [["--tA", row.a], ["--tS", row.shared], ["--tB", row.b]].forEach(([fill, value], j) => {
      parts.push(rect(ends[j] + (j ? 0.75 : 0), yRow, ends[j + 1] - ends[j] - (j < 2 ? 0.75 : 0), barHeight, {fill: `var(${fill})`}));
      if (ends[j + 1] - ends[j] > 26) parts.push(text((ends[j] + ends[j + 1]) / 2, yRow + 17, percent(value), "mid on-strong t12"));
    });
    if (row.random) {
      const middle = row.a + row.shared / 2, left = x(Math.max(0, middle - row.random[0] / 2)), right = x(Math.min(1, middle + row.random[0] / 2));
      parts.push(S("path", {d: `M${round(left)} ${yRow + barHeight + 3}v5H${round(right)}v-5`, fill: "none", stroke: "var(--ink)"}), text(right + 5, yRow + barHeight + 12, percent(row.random[0]), "m"));
    }
    if (!small) parts.push(text(width, yRow + 17, `${thousands(row.kept)} kept`, "end m"));
  });
  return drawing(width, top + rows.length * step - 8, parts);
});

DRAWINGS.set("density", (run, width) => {
  if (!run.masks || !run.masks.density.length) return null;
  const layers = [...new Set(run.masks.density.map(row => row.layer))], tasks = run.tasks.filter(task => run.masks.density.some(row => row.task === task.id));
  const labels = layers.map(layer => layerLabel(run, layer)), x0 = Math.min(width * 0.32, widest(labels) + 14), x1 = width - 44;
  const most = Math.max(0.05, ...run.masks.density.map(row => row.n ? row.kept / row.n : 0)), values = ticksIn(0, most, x1 - x0), x = scale(0, Math.max(most, values[values.length - 1]), x0, x1);
  const bar = 11, step = tasks.length * (bar + 2) + 16, legend = legendOf(tasks.map((task, t) => [taskColour(t), task.label]), x0, width), top = legend.bottom + 14, parts = legend.parts;
  const bottom = top + layers.length * step;
  parts.push(values.map(v => [line(x(v), top - 6, x(v), bottom - 8, "gr"), text(x(v), bottom + 6, percent(v), "mid m")]));
  layers.forEach((layer, l) => {
    const y = top + l * step;
    parts.push(text(x0 - 10, y + step / 2 - 4, fitted(labels[l], x0 - 10), layer === null ? "end b" : "end ink"));
    tasks.forEach((task, t) => {
      const row = run.masks.density.find(item => item.layer === layer && item.task === task.id);
      if (!row || !row.n) return;
      const share = row.kept / row.n;
      parts.push(rect(x0, y + t * (bar + 2), x(share) - x0, bar, {fill: `var(${taskColour(t)})`, rx: 1}), text(x(share) + 5, y + t * (bar + 2) + 9.5, percent(share, share < 0.1 ? 1 : 0), "m"));
    });
  });
  parts.push(text((x0 + x1) / 2, bottom + 24, "weights of the layer that the mask keeps", "mid m"));
  return drawing(width, bottom + 30, parts);
});

DRAWINGS.set("overlap", (run, width, state) => {
  if (!run.masks || !run.masks.share.length) return null;
  const rows = shareRows(run, state.pair), labels = rows.map(row => layerLabel(run, row.layer)), x0 = Math.min(width * 0.34, widest(labels) + 14), x1 = width - 52;
  const most = Math.max(0.1, ...RUNS.filter(r => r.masks).flatMap(r => r.masks.share).flatMap(row => [row.shared, row.random ? row.random[2] : 0, row.repeat || 0]));
  const values = ticksIn(0, most, x1 - x0), x = scale(0, Math.max(most, values[values.length - 1]), x0, x1), step = 28, bottom = rows.length * step + 4, parts = [];
  parts.push(values.map(v => [line(x(v), 0, x(v), bottom, "gr"), text(x(v), bottom + 15, percent(v), "mid m")]));
  rows.forEach((row, i) => {
    const y = i * step + 14;
    parts.push(text(x0 - 10, y + 4, fitted(labels[i], x0 - 10), row.layer === null ? "end b" : "end ink"));
    if (row.random) parts.push(rect(x(row.random[1]), y - 8, Math.max(2, x(row.random[2]) - x(row.random[1])), 16, {fill: "var(--null)", rx: 2}), line(x(row.random[0]), y - 8, x(row.random[0]), y + 8, null, {stroke: "var(--null-2)"}));
    if (row.repeat !== null) parts.push(S("path", {d: `M${round(x(row.repeat))} ${y - 6}l6 6l-6 6l-6 -6z`, fill: "var(--bg)", stroke: "var(--ink)", "stroke-width": 1.5}));
    parts.push(circle(x(row.shared), y, 4.5, {fill: "var(--accent)"}), text(width, y + 4, percent(row.shared), row.layer === null ? "end b" : "end"));
  });
  return drawing(width, bottom + 20, parts);
});

DRAWINGS.set("performance", (run, width) => {
  if (!run.masks || !run.masks.performance.length) return null;
  const rows = run.masks.performance, n = run.tasks.length, x0 = Math.min(width * 0.36, widest(rows.map(row => row.label)) + 14), cell = Math.min(110, (width - x0) / n), height = 28, parts = [];
  run.tasks.forEach((task, t) => parts.push(text(x0 + (t + 0.5) * cell, 10, fitted(task.label, cell - 4), "mid m")));
  let y = 20;
  rows.forEach((row, i) => {
    if (i && row.kind !== rows[i - 1].kind) y += 8;
    parts.push(text(x0 - 10, y + 18, fitted(row.label, x0 - 10), "end ink"));
    row.accuracy.forEach((value, t) => {
      const chance = run.tasks[t].chance || 0, share = value === null ? 0 : 0.92 * Math.max(0, (value - chance) / (1 - chance)), own = row.task === run.tasks[t].id;
      parts.push(rect(x0 + t * cell + 1, y + 1, cell - 2, height - 2, {rx: 2, fill: mix("--seq-hi", share), stroke: own ? "var(--ink)" : null, "stroke-width": own ? 1 : null}),
        text(x0 + (t + 0.5) * cell, y + 18, value === null ? "–" : fixed(100 * value, 1), `mid t12 ${onCell(share)}`));
    });
    y += height;
  });
  return drawing(width, y + 4, parts);
});
