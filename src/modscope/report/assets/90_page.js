// The page: what is chosen, what is drawn, and how the reader moves about.

const state = {run: RUNS.findIndex(run => run.id === DATA.start), module: -1, unit: -1, control: "", pair: "", section: ""};
const current = () => RUNS[state.run];
const contextOf = () => ({control: state.control, pair: state.pair});
let netIsVisible = false;

// ---- hash: run, m (module), u (unit), ctl, s (section); defaults are left out, a bad value is ignored
const readHash = () => {
  const given = new URLSearchParams(location.hash.slice(1));
  const run = RUNS.findIndex(item => item.id === given.get("run"));
  if (run >= 0) state.run = run;
  state.module = current().modules.findIndex(module => module.letter === given.get("m"));
  state.unit = current().units ? unitsOf(current()).findIndex(unit => unit.name === given.get("u")) : -1;
  state.control = given.get("ctl") || "";
  const section = given.get("s") || (location.hash.length > 1 && !location.hash.includes("=") ? decodeURIComponent(location.hash.slice(1)) : "");
  state.section = section && document.getElementById(section) ? section : "";
};
const writeHash = () => {
  const wanted = new URLSearchParams();
  if (current().id !== DATA.start) wanted.set("run", current().id);
  if (state.module >= 0) wanted.set("m", current().modules[state.module].letter);
  if (state.unit >= 0) wanted.set("u", unitsOf(current())[state.unit].name);
  if (state.control) wanted.set("ctl", state.control);
  if (state.section) wanted.set("s", state.section);
  const hash = wanted.toString();
  try { history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search); } catch { /* a sandboxed frame has no history: the page works without */ }
};

// ---- drawing
// Paper: A4 within its margins. Before printing the page still has the layout of the screen, so widths are known here.
const PAPER = {page: 700, half: 338, third: 212, network: 464, panel: 198, thumb: 160};
let isPrinting = false;
const paperWidth = element => {
  if (element.matches(".panel")) return PAPER.panel;
  if (element.matches(".thumb")) return PAPER.thumb;
  if (element.closest(".panels")) return RUNS.length === 1 ? PAPER.page : PAPER.third;
  if (element.closest(".netwrap")) return PAPER.network;
  return element.closest(".s4, .s5, .s6") ? PAPER.half : PAPER.page;
};
const widthOf = element => isPrinting ? paperWidth(element) : Math.max(element.matches(".panel") ? 220 : 240, Math.floor(element.clientWidth));
const emptyBox = (title, words) => H("div", {class: "empty"}, H("b", {}, title), words);

const safely = make => {
  try { return make(); } catch (error) {
    return emptyBox("This figure could not be drawn.", ` ${error.message}. Its table below is complete; the other figures are not affected.`);
  }
};
const drawSafely = (kind, run, width) => safely(() => DRAWINGS.get(kind)(run, width, contextOf()));
const describe = (svg, words) => { if (svg instanceof SVGElement) svg.setAttribute("aria-label", words); return svg; };

const drawFigure = figure => {
  const plot = $(".plot", figure), kind = figure.dataset.kind;
  if (!plot || figure.hidden) return;
  const words = $(".description", figure).textContent.slice(0, 4000);
  plot.replaceChildren();
  if (figure.dataset.run || RUNS.length === 1) {
    const run = figure.dataset.run ? RUNS.find(item => item.id === figure.dataset.run) : RUNS[0];
    plot.append(safely(() => controlsFor(kind, run)) || "");
    const svg = describe(drawSafely(kind, run, widthOf(plot)), words);
    plot.append(svg || (run.one_by_one ? emptyBox("There is nothing to draw.", " The table below has what was found.") : emptyBox("This network is too large for this drawing.", " The table below has what was found.")));
    return;
  }
  plot.append(safely(() => controlsFor(kind, RUNS.find(run => run.bridge) || current())) || "");
  const isDense = kind === "alignment" && RUNS.some(run => run.modules.length > 7), panels = H("div", {class: isDense ? "panels stacked" : "panels"}), holders = RUNS.map(run => H("div", {class: run === current() ? "chosen" : null}, H("h4", {}, run.title)));
  panels.append(...holders);
  plot.append(panels);
  holders.forEach((holder, i) => {
    const svg = describe(drawSafely(kind, RUNS[i], widthOf(holder)), `${RUNS[i].title}. ${words}`);
    holder.append(svg || H("p", {class: "nothing"}, missingWords(figure, RUNS[i])));
  });
};
const missingWords = (figure, run) => {
  const item = $$(".findings li", figure).find(one => $("b", one).textContent === run.title);
  return item ? item.lastChild.textContent.trim() : "Not measured for this network.";
};

const controlsFor = (kind, run) => {
  if (kind === "alignment" && run.bridge && run.bridge.controls.length > 1) {
    const chosen = controlOf(run, state.control);
    return H("div", {class: "ctl", role: "group", "aria-label": "What is held fixed"}, H("span", {}, "Hold fixed"), H("span", {class: "seg"}, run.bridge.controls.map(control =>
      H("button", {type: "button", "data-control": control.id, "aria-pressed": String(control.id === chosen)}, control.label))));
  }
  if (kind === "share" && run.masks && new Set(run.masks.share.map(row => JSON.stringify(row.pair))).size > 1) {
    const pairs = [...new Set(run.masks.share.map(row => JSON.stringify(row.pair)))], chosen = pairOf(run, state.pair);
    return H("div", {class: "ctl"}, H("label", {}, "Tasks ", H("select", {"data-pairs": true}, pairs.map(pair => H("option", {value: pair, selected: pair === chosen}, JSON.parse(pair).map(id => taskLabel(run, id)).join(", "))))));
  }
  return null;
};

// Figures in sight are drawn at once, the others when the browser has nothing else to do or the reader comes near.
const waiting = new Set();
const drawWaiting = figure => { if (waiting.delete(figure)) { near.unobserve(figure); drawFigure(figure); highlight(chosenKey()); } };
const near = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => drawWaiting(entry.target)), {rootMargin: "600px 0px"});
const whenIdle = self.requestIdleCallback ? work => requestIdleCallback(work) : work => setTimeout(work, 30);
const drawNext = () => { const [figure] = waiting; if (figure) { drawWaiting(figure); whenIdle(drawNext); } };

const drawAll = ({now = false} = {}) => {
  waiting.clear();
  near.disconnect();
  for (const figure of $$(".fig")) {
    figure.hidden = Boolean(figure.dataset.run) && figure.dataset.run !== current().id;
    if (figure.hidden) continue;
    if (now) drawFigure(figure); else { waiting.add(figure); near.observe(figure); }
  }
  whenIdle(drawNext);
};
const drawThumbs = () => {
  for (const holder of $$("[data-thumb]")) {
    if (!holder.clientWidth) continue;
    const svg = drawThumb(RUNS.find(run => run.id === holder.dataset.thumb), widthOf(holder), 132);
    holder.replaceChildren(...(svg ? [svg] : []));
  }
};
const markChosen = () => {
  for (const button of $$("[data-choose]")) button.setAttribute("aria-pressed", String(button.dataset.choose === current().id));
  for (const cell of $$("[data-column]")) cell.classList.toggle("chosen", cell.dataset.column === current().id);
};
const fillChips = () => {
  const run = current();
  if (!$("#chips")) return;  // no network was recorded
  $("#chips").replaceChildren(...run.modules.slice(0, 24).map((module, m) => H("button", {type: "button", class: "chip", "data-chip": m, "aria-pressed": String(m === state.module)}, swatch(run, m), module.name || "", ` ${thousands(module.n)} units`)),
    ...(run.modules.length > 24 ? [H("span", {class: "chip plain"}, `${run.modules.length - 24} more modules`)] : []),
    ...(run.units && run.units.module.includes(-1) ? [H("span", {class: "chip plain"}, swatch(run, -1), "in no module")] : []));
};

const showPanel = () => { if ($("#panel")) fillPanel($("#panel"), current(), state); };
const redraw = options => {
  markChosen(); drawThumbs(); drawAll(options); fillChips(); showPanel(); showChoice();
};

// ---- choosing a module or a unit
const chosenKey = () => state.module < 0 ? "" : `${state.run}.${state.module}`;
const highlight = wanted => {  // all figures of this network dim what is not the module
  const run = wanted.split(".")[0];
  for (const mark of $$("[data-m]")) mark.classList.toggle("dim", Boolean(wanted) && mark.dataset.m !== wanted && mark.dataset.m.split(".")[0] === run);
  for (const mark of $$(".cross")) mark.classList.toggle("dim", Boolean(wanted) && mark.dataset.run === run);
};
const showUnit = () => {
  const svg = $(`#network .fig:not([hidden]) .plot svg`), run = current();
  if (!svg || !$(".unit-ring", svg)) return;
  const ring = $(".unit-ring", svg), edges = $(".unit-edges", svg), place = state.unit >= 0 ? run.places[state.unit] : null;
  ring.setAttribute("visibility", place ? "visible" : "hidden");
  edges.setAttribute("d", "");
  if (!place) return;
  ring.setAttribute("cx", round(place.x)); ring.setAttribute("cy", round(place.y));
  edges.setAttribute("d", run.edges ? run.edges.source.map((a, e) => a === state.unit || run.edges.target[e] === state.unit ? curve(run.places[a], run.places[run.edges.target[e]]) : "").join("") : "");
};
const showChoice = () => {
  const run = current(), bar = $("#selbar");
  highlight(chosenKey());
  showUnit();
  for (const chip of $$("[data-chip]")) chip.setAttribute("aria-pressed", String(Number(chip.dataset.chip) === state.module));
  bar.hidden = state.module < 0 || netIsVisible;
  if (state.module >= 0) $("#selected").replaceChildren(swatch(run, state.module), `Module ${run.modules[state.module].letter}${RUNS.length > 1 ? ` of ${run.title}` : ""}, ${thousands(run.modules[state.module].n)} units`);
};
const choose = (module, unit = -1) => {
  state.module = module; state.unit = unit;
  writeHash(); showPanel(); showChoice();
  say(module < 0 ? "No module chosen" : unit >= 0 ? `Unit ${unitsOf(current())[unit].name}, module ${current().modules[module].letter}` : `Module ${current().modules[module].letter} chosen`);
};
const chooseRun = id => {
  const found = RUNS.findIndex(run => run.id === id);
  if (found < 0 || found === state.run) return;
  const before = document.activeElement && document.activeElement.closest("section"), top = before ? before.getBoundingClientRect().top : null;
  Object.assign(state, {run: found, module: -1, unit: -1});
  writeHash(); redraw({now: true});
  if (before) scrollBy({top: before.getBoundingClientRect().top - top, behavior: "instant"});
  say(`${current().title} is shown`);
};
const go = (section, behavior = "smooth") => { state.section = section; writeHash(); const target = document.getElementById(section); if (target) target.scrollIntoView({behavior}); };
const say = words => { $("#live").textContent = words; };

// ---- tables, files, clipboard
const sortable = table => {
  for (const th of $$("thead th", table)) { th.setAttribute("aria-sort", "none"); th.replaceChildren(H("button", {type: "button", "data-sort": true}, th.textContent)); }
};
const sortBy = th => {
  const table = th.closest("table"), column = [...th.parentNode.children].indexOf(th), up = th.getAttribute("aria-sort") !== "ascending";
  $$("th", table).forEach(other => other.setAttribute("aria-sort", "none"));
  th.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => { const words = row.children[column].textContent.replace(/\u2212/g, "-").replace(/[,%<+]/g, "").trim(), number = parseFloat(words); return Number.isNaN(number) ? words : number; };
  const body = $("tbody", table);
  [...body.rows].sort((a, b) => { const [x, y] = [value(a), value(b)]; return (x > y ? 1 : x < y ? -1 : 0) * (up ? 1 : -1); }).forEach(row => body.append(row));
};
const save = (name, content, type) => {
  const link = H("a", {href: URL.createObjectURL(new Blob([content], {type})), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
// A cell that a spreadsheet would read as a formula is written as text.
const csvCell = words => {
  const plain = words.replace(/\u2212/g, "-"), isFormula = /^[=+\-@\t\r]/.test(plain) && !/^[+-]?[\d.,]+%?$/.test(plain);
  return `"${(isFormula ? `'${plain}` : plain).replace(/"/g, '""')}"`;
};
const csvOf = table => $$("tr", table).map(row => [...row.children].map(cell => csvCell(cell.textContent)).join(",")).join("\r\n");
const svgOf = svg => {
  const copy = svg.cloneNode(true), tokens = getComputedStyle(document.documentElement);
  const solved = words => words.replace(/var\((--[\w-]+)\)/g, (_, name) => tokens.getPropertyValue(name).trim());
  const originals = [svg, ...$$("*", svg)];
  [copy, ...$$("*", copy)].forEach((element, i) => {
    for (const name of ["fill", "stroke"]) if (element.tagName === "text" || element.hasAttribute("class") || (element.getAttribute(name) || "").includes("(")) element.setAttribute(name, getComputedStyle(originals[i])[name]);
    if (element.tagName === "text") for (const name of ["font-size", "font-family", "font-weight", "text-anchor"]) element.setAttribute(name, getComputedStyle(originals[i]).getPropertyValue(name));
    for (const {name, value} of [...element.attributes]) if (value.includes("var(")) element.setAttribute(name, solved(value));
  });
  copy.setAttribute("xmlns", SVG);
  return new XMLSerializer().serializeToString(copy);
};
const copyText = (words, button) => {
  const done = () => { const before = button.textContent; button.textContent = "Copied"; setTimeout(() => { button.textContent = before; }, 1200); say("Copied"); };
  const byHand = () => { const area = H("textarea", {}); area.value = words; document.body.append(area); area.select(); document.execCommand("copy"); area.remove(); done(); };
  if (navigator.clipboard) navigator.clipboard.writeText(words).then(done, byHand); else byHand();
};

// ---- search
const found = {hits: [], at: 0};
const search = words => {
  const wanted = words.trim().toLowerCase(), list = $("#hits"), input = $("#search"), run = current();
  list.hidden = !wanted;
  input.setAttribute("aria-expanded", String(Boolean(wanted)));
  if (!wanted) return;
  const figures = $$(".fig").filter(figure => !figure.hidden && $("h3", figure).textContent.toLowerCase().includes(wanted));
  found.hits = [
    ...run.modules.map((module, m) => ({words: `Module ${module.letter}${module.name ? `, ${module.name}` : ""}`, note: `${thousands(module.n)} units`, module: m})).filter(hit => hit.words.toLowerCase().includes(wanted) || hit.words.toLowerCase() === `module ${wanted}`).slice(0, 4),
    ...(run.units ? unitsOf(run).filter(unit => unit.name.toLowerCase().startsWith(wanted)).slice(0, 6).map(unit => ({words: unit.name, note: unit.module < 0 ? "no module" : `module ${run.modules[unit.module].letter}`, module: unit.module, unit: unit.i})) : []),
    ...RUNS.filter(item => RUNS.length > 1 && item.title.toLowerCase().includes(wanted)).map(item => ({words: item.title, note: "network", run: item.id})),
    ...figures.slice(0, 4).map(figure => ({words: $("h3 span", figure).textContent, note: `figure ${$("h3 i", figure).textContent}`, section: figure.id})),
  ].slice(0, 9);
  found.at = 0;
  list.replaceChildren(...(found.hits.length ? found.hits.map((hit, i) => H("li", {role: "option", id: `hit-${i}`, "aria-selected": String(i === 0)}, hit.module !== undefined ? swatch(run, hit.module) : "", H("span", {}, hit.words), H("small", {}, hit.note)))
    : [H("li", {}, H("span", {}, `Nothing matches. Try “${run.layers.length > 1 ? run.layers[1].label : "fc2"}:57”, “A” or “n-cut”.`))]));
};
const take = hit => {
  $("#search").value = ""; search("");
  if (hit.run) chooseRun(hit.run);
  else if (hit.section) go(hit.section);
  else { choose(hit.module, hit.unit === undefined ? -1 : hit.unit); go("network"); }
};

// ---- what the reader does
const closeFormulas = except => { for (const pop of $$(".pop")) if (pop !== except) pop.hidden = true; for (const button of $$("[data-formula]")) button.setAttribute("aria-expanded", String(Boolean(except) && button.dataset.formula === except.id && !except.hidden)); };
const chooseUnit = i => { const unit = unitsOf(current())[i]; choose(unit.module, unit.i); };

const clicked = event => {
  const at = event.target.closest("[data-section],[data-choose],[data-chip],[data-formula],[data-csv],[data-svg],[data-control],[data-unit],[data-copy],[data-sort],[data-u],[data-go],#clear,#show");
  if (!event.target.closest(".pop,[data-formula]")) closeFormulas(null);
  if (!event.target.closest(".search")) search("");
  if (!at) return;
  const data = at.dataset;
  if (data.section) { event.preventDefault(); go(data.section); }
  else if (data.choose) chooseRun(data.choose);
  else if (data.chip) choose(state.module === Number(data.chip) ? -1 : Number(data.chip));
  else if (data.formula) { const pop = document.getElementById(data.formula); pop.hidden = !pop.hidden; closeFormulas(pop); }
  else if (data.csv) save(`${data.csv}.csv`, csvOf($("table", at.closest(".fig"))), "text/csv");
  else if (data.svg) $$(".plot svg", at.closest(".fig")).forEach((svg, i) => save(`${data.svg}${i ? `-${i + 1}` : ""}.svg`, svgOf(svg), "image/svg+xml"));
  else if (data.control) { state.control = data.control; writeHash(); drawFigure(at.closest(".fig")); showPanel(); showChoice(); }
  else if (data.unit) chooseUnit(Number(data.unit));
  else if (data.copy) copyText(document.getElementById(data.copy).textContent, at);
  else if (data.sort !== undefined) sortBy(at.closest("th"));
  else if (data.u) chooseUnit(Number(data.u));
  else if (data.go) { const [run, module] = data.go.split(".").map(Number); if (run !== state.run) chooseRun(RUNS[run].id); choose(state.module === module ? -1 : module); }
  else if (at.id === "clear") choose(-1);
  else if (at.id === "show") go("network");
};

const typed = event => {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) { event.preventDefault(); $("#search").focus(); }
  if (event.key === "Escape") { closeFormulas(null); if (!isTyping && state.module >= 0) choose(-1); }
  if (event.target.closest && event.target.closest("#network .plot svg")) walk(event);
};
const walk = event => {  // arrow keys move along and across layers
  const run = current();
  if (!/^(Arrow(Up|Down|Left|Right)|Enter)$/.test(event.key) || !run.units || !run.places) return;
  event.preventDefault();
  if (event.key === "Enter") { $("#panel").focus(); return; }
  const units = unitsOf(run), at = state.unit >= 0 ? units[state.unit] : units.find(unit => unit.module >= 0), height = unit => run.places[unit.i].y;
  if (!at) return;
  const step = {ArrowUp: -1, ArrowDown: 1}[event.key], layer = at.layer + ({ArrowLeft: -1, ArrowRight: 1}[event.key] || 0);
  const column = units.filter(unit => unit.layer === layer && unit.module >= 0).sort((a, b) => height(a) - height(b) || a.i - b.i);
  if (!column.length) return;
  const next = step ? column[Math.max(0, Math.min(column.length - 1, column.indexOf(at) + step))] : column.reduce((best, unit) => Math.abs(height(unit) - height(at)) < Math.abs(height(best) - height(at)) ? unit : best);
  choose(next.module, next.i);
};
const searchKeys = event => {
  if (event.key === "Escape") { event.target.value = ""; search(""); event.target.blur(); }
  if (event.key === "Enter" && found.hits[found.at] && !$("#hits").hidden) take(found.hits[found.at]);
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    found.at = Math.max(0, Math.min(found.hits.length - 1, found.at + (event.key === "ArrowDown" ? 1 : -1)));
    $$("#hits li").forEach((item, i) => item.setAttribute("aria-selected", String(i === found.at)));
    event.target.setAttribute("aria-activedescendant", `hit-${found.at}`);
  }
};
const pointed = event => {
  const mark = event.target.closest("[data-m],[data-chip]"), tip = $("#tip"), run = current();
  const unit = event.target.closest("#network [data-u]");
  if (unit) {
    const {name, module} = unitsOf(run)[Number(unit.dataset.u)];
    tip.textContent = `${name}, ${module < 0 ? "no module" : `module ${run.modules[module].letter}`}`;
    tip.style.transform = `translate(${Math.min(innerWidth - 200, event.clientX + 12)}px, ${event.clientY + 14}px)`;
  }
  tip.style.opacity = unit ? 1 : 0;
  const wanted = !mark ? chosenKey() : mark.dataset.m || `${state.run}.${mark.dataset.chip}`;
  if (wanted !== pointed.last) { pointed.last = wanted; highlight(wanted.endsWith(".-1") ? chosenKey() : wanted); }
};

const start = () => {
  document.body.classList.add("live");
  $$(".fig table").forEach(sortable);
  readHash();
  redraw();
  document.addEventListener("click", clicked);
  document.addEventListener("keydown", typed);
  document.addEventListener("pointerover", pointed);
  document.addEventListener("focusin", event => { const chip = event.target.closest("[data-chip]"); if (chip) highlight(`${state.run}.${chip.dataset.chip}`); });
  document.addEventListener("change", event => { if (event.target.matches("[data-pairs]")) { state.pair = event.target.value; redraw({now: true}); } });
  $("#search").addEventListener("input", event => search(event.target.value));
  $("#search").addEventListener("keydown", searchKeys);
  $("#hits").addEventListener("click", event => { const item = event.target.closest("[role=option]"); if (item) take(found.hits[$$("#hits li").indexOf(item)]); });
  const sections = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => $$(".nav a").forEach(link => {
    link.setAttribute("aria-current", String(link.dataset.section === entry.target.id));
    if (link.dataset.section === entry.target.id && innerWidth < 1120) $(".nav").scrollTo({left: link.offsetLeft - 40});
  })), {rootMargin: "-15% 0px -75% 0px"});
  $$("main > section").forEach(section => sections.observe(section));
  new IntersectionObserver(entries => { netIsVisible = entries[0].isIntersecting; $("#selbar").hidden = state.module < 0 || netIsVisible; }, {threshold: 0.1}).observe($("#network"));
  let width = innerWidth, timer = 0;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; clearTimeout(timer); timer = setTimeout(redraw, 120); } });
  addEventListener("hashchange", () => { readHash(); redraw(); if (state.section) go(state.section, "auto"); });
  addEventListener("beforeprint", () => { isPrinting = true; redraw({now: true}); });
  addEventListener("afterprint", () => { isPrinting = false; redraw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
  if (state.section) go(state.section, "auto");
};
start();
