// Structure: n-cut against its nulls, the weight graph, and the layers inside each module.

DRAWINGS.set("ncut", (run, width) => {
  if (!run.ncut || !run.ncut.nulls.length) return null;
  const {observed, nulls} = run.ncut, all = nulls.flatMap(n => n.samples).concat(observed);
  const columns = width >= 320 * nulls.length ? nulls.length : 1, gap = 40, w = (width - gap * (columns - 1)) / columns, names = nulls.map(n => wrapped(n.label, w - 4, 12));
  const nameHeight = 15 * Math.max(...names.map(lines => lines.length)), panelHeight = 152 + nameHeight, step = panelHeight + 12, rows = Math.ceil(nulls.length / columns);
  const margin = 0.08 * (Math.max(...all) - Math.min(...all)) || 0.1, low = Math.min(...all) - margin, high = Math.max(...all) + margin;
  const values = ticksIn(low, high, w, 76), digits = decimals(values), parts = [];
  nulls.forEach((n, i) => {
    const ox = i % columns * (w + gap), oy = Math.floor(i / columns) * step, base = oy + panelHeight - 34, head = oy + nameHeight, x = scale(low, high, ox + 2, ox + w - 2);
    const bins = Math.min(Math.round(w / 7), Math.max(24, Math.round(5 * Math.sqrt(n.samples.length)))), counts = Array(bins).fill(0);
    for (const sample of n.samples) counts[Math.min(bins - 1, Math.floor((sample - low) / (high - low) * bins))] += 1;
    const y = scale(0, Math.max(...counts, 1) * 1.1, base, head + 52), isRight = x(observed) > ox + w - measured(`this network ${fixed(observed)}`, 11, 600) - 12;
    parts.push(names[i].map((words, l) => text(ox + 2, oy + 12 + 15 * l, words, "b t12")),
      text(ox + 2, head + 15, `z ${fixed(n.test.z, 1)}, p ${pText(n.test.p)}`, "ink t12"), text(ox + w - 2, head + 15, `${thousands(n.samples.length)} shuffles`, "end m"));
    counts.forEach((k, b) => { if (k) parts.push(rect(x(low + b * (high - low) / bins), y(k), (w - 4) / bins - 0.7, base - y(k), {fill: "var(--null-2)", "fill-opacity": 0.75})); });
    parts.push(axisBelow(ox + 2, ox + w - 2, base, values.filter(v => x(v) > ox + 18 && x(v) < ox + w - 18), x, v => fixed(v, digits)),
      line(x(observed), head + 30, x(observed), base, null, {stroke: "var(--accent)", "stroke-width": 2}),
      text(x(observed) + (isRight ? -6 : 6), head + 39, `this network ${fixed(observed)}`, isRight ? "accent halo end" : "accent halo"));
    if (Math.floor(i / columns) === rows - 1) parts.push(text(ox + w / 2, rows * step - 14, "n-cut, lower is more clustered", "mid m"));
  });
  return drawing(width, rows * step - 8, parts);
});

const SWEEP_COLOURS = ["--accent", "--ink", "--tB"];

DRAWINGS.set("sweep", (run, width) => {
  if (!run.sweep || !run.sweep.bands.length) return null;
  const {points, bands} = run.sweep, numbers = points.map(point => point.k), parts = [];
  const all = RUNS.flatMap(one => one.sweep ? one.sweep.bands.flatMap(band => band.gaps.flatMap(gap => [gap.gap, gap.min, gap.max])) : []);  // one scale for all networks
  const margin = 0.06 * (Math.max(...all, 0) - Math.min(...all, 0)) || 0.1, low = Math.min(...all, 0) - margin, high = Math.max(...all, 0) + margin;
  const values = ticks(low, high, 5), digits = decimals(values), x0 = Math.max(widest(values.map(v => fixed(v, digits))), measured("n-cut")) + 14;
  const side = Math.max(16, widest(points.map(point => fixed(point.ncut, 1))) / 2 + 2);
  let top = 4;
  bands.forEach((band, b) => {
    const hue = `var(${SWEEP_COLOURS[b % SWEEP_COLOURS.length]})`;
    parts.push(line(0, top + 8, 18, top + 8, null, {stroke: hue, "stroke-width": 1.75}), circle(9, top + 8, 3.5, {fill: hue}));
    for (const words of wrapped(`${band.label}, p\u00a0${pText(band.p_in_all)}\u00a0in\u00a0all`, width - 26)) { parts.push(text(24, top + 12, words, "ink")); top += 15; }
    top += 3;
  });
  const y0 = top + 24, y1 = y0 + 190, x = scale(Math.min(...numbers), Math.max(...numbers), x0 + side, width - side), y = scale(low, high, y1, y0), single = numbers.length === 1;
  const at = k => single ? (x0 + width) / 2 : x(k), path = (several, closed) => several.map(([k, v], i) => `${i ? "L" : "M"}${round(at(k))} ${round(y(v))}`).join("") + (closed ? "z" : "");
  parts.push(text(0, y0 - 8, "n-cut minus null mean", "m"), linesAcross(x0, width, values, y, v => fixed(v, digits)));
  for (const band of bands) {
    const upper = points.map((point, i) => [point.k, band.gaps[i].high]), lower = points.map((point, i) => [point.k, band.gaps[i].low]).reverse();
    parts.push(S("path", {d: path([...upper, ...lower], true), fill: "var(--null)", "fill-opacity": 0.6}));
  }
  bands.forEach((band, b) => points.forEach((point, i) => {
    const place = at(point.k) + (b - (bands.length - 1) / 2) * 5;
    parts.push(line(place, y(band.gaps[i].min), place, y(band.gaps[i].max), null, {stroke: "var(--null-2)"}));
  }));
  parts.push(line(x0, y(0), width, y(0)));
  bands.forEach((band, b) => {
    const hue = `var(${SWEEP_COLOURS[b % SWEEP_COLOURS.length]})`;
    parts.push(S("path", {d: path(points.map((point, i) => [point.k, band.gaps[i].gap])), fill: "none", stroke: hue, "stroke-width": 1.75}),
      points.map((point, i) => circle(at(point.k), y(band.gaps[i].gap), 3.5, {fill: band.gaps[i].p_adjusted <= 0.05 && band.gaps[i].gap < 0 ? hue : "var(--bg)", stroke: hue, "stroke-width": 1.5})));
  });
  const label = (k, words, row) => text(at(k), y1 + row, words, run.ncut && run.ncut.k === k ? "mid b" : "mid m");
  let last = -Infinity;
  points.forEach(point => {  // labels that would touch are left out; the table has them all
    const need = Math.max(measured(fixed(point.ncut, 1)), measured(String(point.k))) / 2 + 3;
    if (at(point.k) - need < last) return;
    last = at(point.k) + need;
    parts.push(label(point.k, point.k, 18), label(point.k, fixed(point.ncut, 1), 34));
  });
  parts.push(text(x0 - 8, y1 + 18, "k", "end m"), text(x0 - 8, y1 + 34, "n-cut", "end m"));
  return drawing(width, y1 + 42, parts);
});

const matrixPanel = (run, order, ox, oy, size, title, byModule) => {
  const place = new Map(order.map((unit, i) => [unit.i, i])), cell = size / order.length, mark = Math.max(1.3, cell);
  const paths = ["", "", ""], {source, target, weight} = run.edges;
  const strong = weight[Math.floor(weight.length * 0.15)] || 0, middling = weight[Math.floor(weight.length * 0.5)] || 0;
  weight.forEach((w, e) => {
    if (!place.has(source[e]) || !place.has(target[e])) return;
    const [a, b] = [place.get(source[e]), place.get(target[e])], level = w >= strong ? 2 : w >= middling ? 1 : 0;
    for (const [i, j] of [[a, b], [b, a]]) paths[level] += `M${round(ox + 12 + j * cell)} ${round(oy + i * cell)}h${round(mark)}v${round(mark)}h${-round(mark)}z`;
  });
  const parts = [text(ox + 12, oy - 10, title, "b"), rect(ox + 12, oy, size, size, {fill: "var(--surface)", stroke: "var(--rule-2)"}),
    paths.map((d, level) => d && S("path", {d, fill: "var(--ink)", "fill-opacity": [0.22, 0.45, 0.85][level]}))];
  for (let i = 0; i < order.length;) {
    const value = byModule ? order[i].module : order[i].layer;
    let j = i;
    while (j < order.length && (byModule ? order[j].module : order[j].layer) === value) j += 1;
    const middle = ox + 12 + (i + j) / 2 * cell;
    if (byModule && value >= 0) {
      parts.push(group(marked(run, value), rect(ox, oy + i * cell, 7, (j - i) * cell - 1, {fill: colour(value)}),
        rect(ox + 12 + i * cell, oy + i * cell, (j - i) * cell, (j - i) * cell, {fill: "none", stroke: colour(value), "stroke-width": 1.5}), text(middle, oy + size + 14, run.modules[value].letter, "mid ink")));
    } else {
      const label = byModule ? "none" : run.layers[value].label;
      parts.push(rect(ox, oy + i * cell, 7, (j - i) * cell - 1, {fill: "var(--null-2)"}), (j - i) * cell > measured(label) - 4 && text(middle, oy + size + 14, label, "mid m"));
    }
    i = j;
  }
  return parts;
};

DRAWINGS.set("matrix", (run, width) => {
  if (!run.units || !run.edges || !run.one_by_one) return null;
  const used = unitsOf(run).filter(unit => unit.module >= 0), two = width >= 440, gap = 24, size = two ? (width - gap) / 2 - 14 : Math.min(width, 380) - 14;
  const byLayer = [...used].sort((a, b) => a.layer - b.layer || a.index - b.index), byModule = [...used].sort((a, b) => a.module - b.module || a.layer - b.layer || a.index - b.index);
  return drawing(width, two ? size + 48 : 2 * size + 100, matrixPanel(run, byLayer, 0, 24, size, "layer by layer", false),
    two ? matrixPanel(run, byModule, size + 14 + gap, 24, size, "module by module", true) : matrixPanel(run, byModule, 0, size + 76, size, "module by module", true));
});

DRAWINGS.set("composition", (run, width) => {
  if (!run.modules.length) return null;
  const labels = run.layers.map(layer => layer.label), depth = l => run.layers.length > 1 ? 0.15 + 0.75 * l / (run.layers.length - 1) : 0.6, parts = [];
  const shown = run.modules.map((module, m) => ({...module, m})).sort((a, b) => b.n - a.n).slice(0, 24).sort((a, b) => a.m - b.m);
  let at = 28, y = 0;
  const legend = labels.map((label, l) => [label, l]), isLong = labels.length > 9;
  (isLong ? [legend[0], legend[legend.length >> 1], legend[legend.length - 1]] : legend).forEach(([label, l], i, several) => {
    const words = fitted(label, 110) + (isLong && i < several.length - 1 ? " …" : ""), wanted = measured(words) + 15;
    if (at + wanted > width && at > 28) { at = 28; y += 18; }
    parts.push(rect(at, y + 2, 10, 10, {rx: 2, fill: mix("--seq-hi", depth(l))}), text(at + 14, y + 11, words));
    at += wanted + 12;
  });
  const top = y + 28, x1 = width - 68, x = scale(0, 1, 28, x1);
  shown.forEach((module, i) => {
    const yRow = top + i * 27, bar = group(marked(run, module.m));
    let before = 0;
    parts.push(badge(run, module.m, 9, yRow + 9, 18));
    module.by_layer.forEach((n, l) => {
      if (!n) return;
      const share = n / module.n, width_ = x(before + share) - x(before);
      bar.append(rect(x(before), yRow, width_ - 1, 18, {fill: mix("--seq-hi", depth(l))}));
      if (width_ > measured(thousands(n)) + 6) bar.append(text(x(before + share / 2), yRow + 13, thousands(n), `mid ${onCell(depth(l))}`));
      before += share;
    });
    parts.push(bar, text(width, yRow + 13, `${thousands(module.n)} units`, "end m"));
  });
  if (run.modules.length > shown.length) parts.push(text(28, top + shown.length * 27 + 12, `${run.modules.length - shown.length} smaller modules`, "m"));
  return drawing(width, top + shown.length * 27 + (run.modules.length > shown.length ? 18 : 0), parts);
});
