// Stability: how far repeated runs agree.

DRAWINGS.set("repeats", (run, width) => {
  const items = run.stability ? run.stability.repeats.filter(item => item.values.length) : [];
  if (!items.length) return null;
  const all = RUNS.flatMap(one => one.stability ? one.stability.repeats.flatMap(item => item.values.concat(item.chance === null ? [] : item.chance)) : []);
  const low = Math.min(0, ...all), high = Math.max(1, ...all), x = scale(low, high, 14, width - 46), values = ticksIn(low, high, width), step = 42, end = items.length * step, parts = [];
  parts.push(values.map(v => [line(x(v), 4, x(v), end, v === 0 ? "ax" : "gr"), text(x(v), end + 14, fixed(v, decimals(values)), "mid m")]));
  items.forEach((item, i) => {
    const y = 28 + i * step, mean = item.values.reduce((sum, v) => sum + v, 0) / item.values.length;
    parts.push(text(2, y - 13, fitted(item.source, width - 12), "ink halo"));
    if (item.chance !== null) parts.push(rect(x(item.chance) - 2.5, y - 8, 5, 16, {fill: "var(--null-2)", rx: 1}));
    item.values.slice(0, 200).forEach((v, j) => parts.push(circle(x(v), y + (j * 0.618 % 1 - 0.5) * 9, 2.6, {fill: "var(--accent)", "fill-opacity": 0.45})));
    parts.push(line(x(mean), y - 8, x(mean), y + 8, null, {stroke: "var(--accent)", "stroke-width": 2.5}), text(width, y + 4, fixed(mean), "end b"));
  });
  return drawing(width, end + 20, parts);
});
