// The network: depth on x, units grouped by module, the strongest weights as curves.

const curve = (a, b) => {
  const pull = (b.x - a.x) * 0.48;
  return `M${round(a.x)} ${round(a.y)}C${round(a.x + pull)} ${round(a.y)} ${round(b.x - pull)} ${round(b.y)} ${round(b.x)} ${round(b.y)}`;
};

const isPicture = layer => layer.shape && layer.shape.length === 2 && layer.shape[0] * layer.shape[1] === layer.n;

const unitsOf = run => {  // one object per unit, made once
  if (run.unitList) return run.unitList;
  const {layer, index, module, degree} = run.units;
  run.unitList = layer.map((l, i) => {
    const label = run.layers[l].unit_labels[index[i]];
    return {i, layer: l, index: index[i], module: module[i], degree: degree.length ? degree[i] : null, name: `${run.layers[l].label}:${label === undefined ? index[i] : label}`, label};
  });
  return run.unitList;
};

const placeUnits = (run, width, height, margin) => {  // x and y of every unit
  const units = unitsOf(run), first = run.layers[0], hasPicture = isPicture(first), n = run.layers.length;
  const cell = hasPicture ? Math.max(3, Math.min(12, width * 0.2 / first.shape[1], (height - 60) / first.shape[0])) : 0;
  const pictureWidth = hasPicture ? cell * first.shape[1] : 0;
  const right = width - margin.right, left = hasPicture ? pictureWidth + (right - pictureWidth) * 0.22 : margin.left;
  const xs = run.layers.map((_, l) => hasPicture ? (l === 0 ? pictureWidth / 2 : n === 2 ? right : scale(1, n - 1, left, right)(l)) : n === 1 ? width / 2 : scale(0, n - 1, left, right)(l));
  const middle = (margin.top + height - margin.bottom) / 2, places = units.map(() => null);
  const marks = run.layers.map((layer, l) => {
    const mine = units.filter(unit => unit.layer === l);
    if (hasPicture && l === 0) {
      const top = middle - cell * first.shape[0] / 2;
      for (const unit of mine) places[unit.i] = {x: (unit.index % first.shape[1] + 0.5) * cell, y: top + (Math.floor(unit.index / first.shape[1]) + 0.5) * cell, size: cell - 0.8};
      return {layer, x: xs[0], top, bottom: top + cell * first.shape[0], isPicture: true, width: pictureWidth};
    }
    const order = [...run.modules.keys(), -1];
    const groups = order.map(m => mine.filter(unit => unit.module === m).sort((a, b) => b.degree - a.degree || a.i - b.i)).filter(g => g.length);
    const gap = 10, room = height - margin.top - margin.bottom, gaps = gap * Math.max(0, groups.length - 1);
    const span = Math.min(room, mine.length * 22 + gaps), step = Math.max(0, span - gaps) / Math.max(1, mine.length);
    let y = middle - span / 2 + step / 2;
    const radius = Math.max(1.2, Math.min(5, step * 0.46));
    for (const several of groups) {
      for (const unit of several) { places[unit.i] = {x: xs[l], y, radius}; y += step; }
      y += gap;
    }
    return {layer, x: xs[l], step, radius, top: middle - span / 2, bottom: middle + span / 2};
  });
  return {places, marks};
};

const edgePaths = (run, places, widths, limit) => {  // few paths, one per module and strength
  const bins = new Map(), {source, target, weight} = run.edges, strongest = weight.slice(0, limit);
  const strong = strongest[Math.floor(strongest.length * 0.15)] || 0, middling = strongest[Math.floor(strongest.length * 0.5)] || 0;
  const units = unitsOf(run);
  strongest.forEach((w, e) => {
    const a = units[source[e]].module, b = units[target[e]].module, same = a === b ? a : -1;
    const bin = `${same}|${w >= strong ? 2 : w >= middling ? 1 : 0}`;
    if (!bins.has(bin)) bins.set(bin, []);
    bins.get(bin).push(curve(places[source[e]], places[target[e]]));
  });
  return [...bins.keys()].sort((p, q) => parseInt(p, 10) - parseInt(q, 10) || p.localeCompare(q)).map(bin => {
    const [module, level] = bin.split("|").map(Number);
    return S("path", {...(module < 0 ? {class: "cross", "data-run": RUNS.indexOf(run)} : marked(run, module)), d: bins.get(bin).join(""), fill: "none",
      stroke: module < 0 ? "var(--null-2)" : colour(module), "stroke-width": widths[level], "stroke-opacity": (module < 0 ? [0.16, 0.24, 0.36] : [0.24, 0.38, 0.6])[level]});
  });
};

const drawNetwork = (run, width) => {
  if (!run.layers.length) return null;
  if (!run.one_by_one) return drawBars(run, width);
  const small = width < 560, height = small ? 480 : 632;
  const lastLabels = run.layers[run.layers.length - 1].unit_labels;
  const right = lastLabels.length ? Math.min(90, widest(lastLabels) + 20) : 34;
  const isCrowded = crowded(run, width), {places, marks} = placeUnits(run, width, height, {top: 30, bottom: isCrowded ? 96 : 30, left: 30, right});
  run.places = places;
  const nodes = unitsOf(run).map(unit => {
    const place = places[unit.i], common = {...marked(run, unit.module), "data-u": unit.i, fill: colour(unit.module), opacity: unit.module < 0 ? 0.6 : null};
    if (place.size) return rect(place.x - place.size / 2, place.y - place.size / 2, place.size, place.size, {rx: 0.6, ...common});
    const ring = unit.module < 8 ? {} : {fill: unit.module < 16 ? "var(--bg)" : "var(--null)", stroke: colour(unit.module), "stroke-width": round(Math.min(2, place.radius * 0.6))};
    return circle(place.x, place.y, round(place.radius), {...common, ...ring});
  });
  const names = unitsOf(run).filter(unit => unit.label !== undefined && marks[unit.layer].step >= 10).map(unit =>
    group(marked(run, unit.module), text(places[unit.i].x + places[unit.i].radius + 5, places[unit.i].y + 4, fitted(unit.label, 80))));
  const labels = marks.map((mark, l) => mark.isPicture ? pictureLabels(mark, small) : layerName(run, l, mark.x, height - 8, width, {isCrowded, hasCount: !small}));
  const svg = drawing(width, height,
    group({class: "edges"}, run.edges ? edgePaths(run, places, small ? [0.4, 0.7, 1.2] : [0.5, 0.9, 1.6], 1800) : null),
    S("path", {class: "unit-edges", d: "", fill: "none", stroke: "var(--ink)", "stroke-width": 1.2}),
    group({class: "nodes"}, nodes), names, labels,
    text(0, 12, "depth →", "m"),
    circle(0, 0, 8, {class: "unit-ring", fill: "none", stroke: "var(--ink)", "stroke-width": 1.5, visibility: "hidden"}));
  svg.setAttribute("role", "group");
  svg.setAttribute("tabindex", "0");
  return svg;
};

const crowded = (run, width) => run.layers.length > 1 && widest(run.layers.map(layer => layer.label)) > width * 0.75 / (run.layers.length - 1) - 8;
const layerName = (run, l, x, y, width, {isCrowded, hasCount}) => {  // slanted where there are too many for one line, every n-th where even that is too much
  const layer = run.layers[l], last = run.layers.length - 1, isLast = l === last, every = Math.max(1, Math.ceil(14 * last / (width * 0.75)));
  if (l % every && !isLast || every > 1 && !isLast && last - l < every) return null;
  if (isCrowded) return text(0, 0, fitted(layer.label, Math.min(112, (x + 4) / 0.7)), "end m", {transform: `translate(${round(x + 4)},${round(y - 74)}) rotate(-48)`, x: null, y: null});
  const words = hasCount ? `${layer.label} · ${thousands(layer.n)}` : layer.label, atEdge = isLast && x + measured(words) / 2 > width;
  return text(atEdge ? width : x, y, fitted(words, 140), atEdge ? "end m" : "mid m");
};

const pictureLabels = (mark, small) => {
  const {layer} = mark, found = [text(mark.x, mark.top - 12, small ? layer.label : `${layer.label} · ${layer.shape[0]} × ${layer.shape[1]}`, "mid ink halo")];
  const room = mark.width / (layer.sides.length || 1), isTight = layer.sides.some(side => measured(side) > room);
  layer.sides.forEach((side, i) => found.push(text(mark.x + mark.width * ((i + 0.5) / layer.sides.length - 0.5), mark.bottom + 18, fitted(isTight ? side.split(" ")[0] : side, room), "mid m halo")));
  return found;
};

const drawBars = (run, width) => {  // too many units to draw: one bar per module and layer, height = square root of units
  const isCrowded = crowded(run, width), height = isCrowded ? 560 : 480, top = 24, bottom = height - (isCrowded ? 98 : 32), n = run.layers.length, k = run.modules.length;
  if (!k) return null;
  const x = n === 1 ? () => width / 2 : scale(0, n - 1, 40, width - 40), places = new Map();
  const heights = run.layers.map((_, l) => run.modules.map(module => Math.sqrt(module.by_layer[l])));
  const most = Math.max(1, ...heights.map(column => column.reduce((a, b) => a + b, 0)));
  const unit = (bottom - top - 8 * k) / most, bars = [];
  heights.forEach((column, l) => {
    let y = (top + bottom) / 2 - (column.reduce((a, b) => a + b, 0) * unit + 8 * (k - 1)) / 2;
    column.forEach((h, m) => {
      if (h) {
        places.set(`${l}.${m}`, {x: x(l), y: y + h * unit / 2});
        bars.push(group(clickable(run, m), filled(m, fill => rect(x(l) - 7, y, 14, h * unit, {rx: 2, fill}))));
      }
      y += h * unit + 8;
    });
  });
  const labels = run.layers.map((_, l) => layerName(run, l, x(l), height - 8, width, {isCrowded, hasCount: false}));
  return drawing(width, height, ribbons(run, places), bars, labels);
};

const ribbons = (run, places) => {
  if (!run.edges || !run.units) return null;
  const sums = new Map(), {layer, module} = run.units;
  run.edges.weight.forEach((w, e) => {
    const [a, b] = [run.edges.source[e], run.edges.target[e]].map(u => `${layer[u]}.${module[u]}`);
    if (places.has(a) && places.has(b)) sums.set(`${a}|${b}`, (sums.get(`${a}|${b}`) || 0) + w);
  });
  const most = Math.max(...sums.values(), 1e-12);
  return [...sums].map(([pair, w]) => {
    const [a, b] = pair.split("|"), m = Number(a.split(".")[1]), same = a.split(".")[1] === b.split(".")[1];
    return S("path", {...(same ? marked(run, m) : {class: "cross", "data-run": RUNS.indexOf(run)}), d: curve(places.get(a), places.get(b)), fill: "none", stroke: same ? colour(m) : "var(--null-2)", "stroke-opacity": same ? 0.6 : 0.3, "stroke-width": round(Math.max(0.5, 14 * Math.sqrt(w / most)))});
  });
};

const drawThumb = (run, width, height) => {
  if (!run.units || !run.edges || !run.one_by_one) return null;
  const {places} = placeUnits(run, width, height, {top: 4, bottom: 4, left: 6, right: 6});
  const nodes = unitsOf(run).map(unit => {
    const place = places[unit.i], fill = colour(unit.module), opacity = unit.module < 0 ? 0.5 : null;
    return place.size ? rect(place.x - place.size / 2, place.y - place.size / 2, place.size, place.size, {fill, opacity}) : circle(place.x, place.y, Math.min(1.6, place.radius), {fill, opacity});
  });
  return drawing(width, height, edgePaths(run, places, [0.3, 0.5, 0.9], 700), nodes);
};

DRAWINGS.set("network", drawNetwork);
