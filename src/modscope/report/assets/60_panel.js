// The panel beside the network: one module in numbers, and its units.

const heading = words => H("h4", {}, words);
const facts = pairs => H("div", {class: "kv"}, pairs.filter(Boolean).map(([name, value]) => [H("span", {}, name), H("b", {}, value)]));

const MOST_ROWS = 14;  // in one list of the panel: the largest
const largest = (rows, value) => rows.length <= MOST_ROWS ? rows : [...rows].sort((a, b) => value(b) - value(a)).slice(0, MOST_ROWS).sort((a, b) => rows.indexOf(a) - rows.indexOf(b));
const more = (n, what) => n > MOST_ROWS ? H("p", {class: "hint"}, `The ${MOST_ROWS} largest of ${n} ${what}.`) : null;

const layerBars = (run, module, width) => {
  const layers = largest(run.modules[module].by_layer.map((n, l) => ({n, label: run.layers[l].label})), layer => layer.n), most = Math.max(1, ...layers.map(layer => layer.n)), x0 = 96, x = scale(0, most, x0, width - 34);
  return [drawing(width, layers.length * 18 + 2, layers.map(({n, label}, i) => [text(0, i * 18 + 13, fitted(label, x0 - 8), "ink"),
    rect(x0, i * 18 + 4, x(n) - x0, 11, {fill: colour(module), rx: 1}), text(x(n) + 4, i * 18 + 13, thousands(n), "m")])), more(run.layers.length, "layers")];
};

const lossBars = (run, module, width) => {
  if (!run.lesions) return null;
  const rows = run.lesions.rows.filter(row => row.module === module), tasks = run.tasks.filter(task => rows.some(row => row.task === task.id));
  if (!rows.length) return null;
  const most = Math.max(0.02, ...run.lesions.rows.map(row => Math.max(row.drop, row.null_high || 0))), x0 = 96, x = scale(0, most, x0, width - 38), parts = [];
  let y = 0;
  for (const task of tasks) {
    parts.push(text(0, y + 12, fitted(task.label, width, 11, 600), "b"));
    y += 18;
    for (const row of largest(rows.filter(item => item.task === task.id), item => item.drop)) {
      parts.push(text(0, y + 12, fitted(layerLabel(run, row.layer), x0 - 8), "ink"));
      if (row.null_low !== null && row.null_high !== null) parts.push(rect(x(Math.max(0, row.null_low)), y + 1, Math.max(2, x(Math.max(0, row.null_high)) - x(Math.max(0, row.null_low))), 15, {fill: "var(--null)"}));
      parts.push(rect(x0, y + 5, Math.max(1, x(Math.max(0, row.drop)) - x0), 7, {fill: colour(module)}), text(width, y + 12, fixed(100 * row.drop, 1), isSure(row.p_adjusted) ? "end b" : "end m"));
      y += 18;
    }
    y += 4;
  }
  return drawing(width, y, parts);
};

const oddsBars = (run, module, width, control) => {
  if (!run.bridge || !run.bridge.cells.length) return null;
  const cells = run.bridge.cells.filter(cell => cell.module === module && cell.control === controlOf(run, control) && cell.log_odds !== null);
  if (!cells.length) return null;
  const most = Math.max(0.2, ...run.bridge.cells.map(cell => Math.abs(cell.log_odds || 0))), x = scale(-most, most, 96 + 34, width - 34), middle = x(0);
  return drawing(width, cells.length * 20, line(middle, 0, middle, cells.length * 20), cells.map((cell, i) => {
    const end = x(cell.log_odds), less = cell.log_odds < 0;
    return [text(0, i * 20 + 13, fitted(taskLabel(run, cell.task), 92), "ink"), rect(Math.min(middle, end), i * 20 + 4, Math.abs(end - middle), 11, {fill: isSure(cell.p_adjusted) ? (less ? "var(--neg)" : "var(--pos)") : "var(--null-2)"}),
      text(end + (less ? -4 : 4), i * 20 + 13, fixed(cell.log_odds), less ? "end m" : "m")];
  }));
};

const unitTable = (run, module, chosen) => {
  if (!run.units) return null;
  const mine = unitsOf(run).filter(unit => unit.module === module).sort((a, b) => (b.degree || 0) - (a.degree || 0) || a.i - b.i), shown = mine.slice(0, 200);
  if (chosen && !shown.includes(chosen)) shown.unshift(chosen);
  const rows = shown.map(unit => H("tr", {class: unit === chosen ? "current" : null}, H("td", {}, H("button", {type: "button", class: "unit-link", "data-unit": unit.i}, unit.name)), H("td", {class: "n"}, fixed(unit.degree, 1))));
  return [heading("Units, by the size of all their weights"), H("div", {class: "tw"}, H("table", {}, H("thead", {}, H("tr", {}, H("th", {scope: "col"}, "unit"), H("th", {scope: "col", class: "n"}, "degree"))), H("tbody", {}, rows))),
    mine.length > 200 ? H("p", {class: "hint"}, `${thousands(mine.length - 200)} more are in the record.`) : null];
};

const fillPanel = (panel, run, state) => {
  const wide = widthOf(panel) - 32;
  panel.replaceChildren();
  panel.hidden = !run.modules.length;
  if (!run.modules.length) return;
  const module = state.module < 0 ? 0 : state.module, data = run.modules[module], chosen = run.units && state.unit >= 0 ? unitsOf(run)[state.unit] : null;
  const hidden = data.by_layer.reduce((sum, n, l) => sum + (run.layers[l].kind === "input" || run.layers[l].kind === "output" ? 0 : n), 0);
  const losses = lossBars(run, module, wide), odds = oddsBars(run, module, wide, state.control);
  panel.append(H("h3", {}, swatch(run, module), `Module ${data.letter}`), data.name ? H("p", {}, data.name) : "",
    facts([["Units", thousands(data.n)], ["of them hidden", thousands(hidden)], chosen && ["Chosen unit", chosen.name]]),
    heading("Units per layer"), ...layerBars(run, module, wide).filter(Boolean));
  if (losses) panel.append(heading("Points lost without it, grey is random units"), losses);
  if (odds) panel.append(heading("Use by task, log-odds"), odds);
  panel.append(...(unitTable(run, module, chosen) || []).filter(Boolean));
  if (state.module < 0) panel.append(H("p", {class: "hint"}, "Point at a module in the drawing, or click a letter below it."));
};
