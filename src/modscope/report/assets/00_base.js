"use strict";
// What every drawing is made of. Nothing here reads markup: text becomes text nodes, so that no name can become code.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const DRAWINGS = new Map();  // id of a figure -> (run, width) => svg, or null where there is nothing to draw

const SVG = "http://www.w3.org/2000/svg";
const build = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== "" && child !== false));
  return element;
};
const H = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const S = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
const $ = (selector, inside = document) => inside.querySelector(selector);
const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// numbers for readers
const round = value => Math.round(value * 10) / 10;
const minus = text => String(text).replace(/-/g, "\u2212");
const fixed = (value, digits = 2) => value === null || value === undefined ? "–" : minus(Number(value).toFixed(digits));
const percent = (value, digits = 0) => value === null || value === undefined ? "–" : minus((100 * value).toFixed(digits)) + "%";
const thousands = value => Number(value).toLocaleString("en");
const pText = p => p === null || p === undefined ? "–" : p < 0.0005 ? "< 0.001" : p.toFixed(3);

// shapes
const text = (x, y, words, className = "", attributes = {}) => S("text", {x: round(x), y: round(y), class: className || null, ...attributes}, String(words));
const rect = (x, y, width, height, attributes = {}) => S("rect", {x: round(x), y: round(y), width: round(Math.max(0, width)), height: round(Math.max(0, height)), ...attributes});
const line = (x1, y1, x2, y2, className = "ax", attributes = {}) => S("line", {x1: round(x1), y1: round(y1), x2: round(x2), y2: round(y2), class: className || null, ...attributes});
const circle = (cx, cy, r, attributes = {}) => S("circle", {cx: round(cx), cy: round(cy), r, ...attributes});
const group = (attributes, ...children) => S("g", attributes, ...children);
const drawing = (width, height, ...children) => S("svg", {viewBox: `0 0 ${round(width)} ${round(height)}`, width: round(width), height: round(height), role: "img"}, ...children);
const scale = (low, high, from, to) => value => from + (value - low) / ((high - low) || 1) * (to - from);
const mix = (high, share, low = "--seq-lo") => `color-mix(in oklab, var(${high}) ${Math.round(100 * Math.min(1, Math.max(0, share)))}%, var(${low}))`;
const isDark = () => matchMedia("screen and (prefers-color-scheme: dark)").matches;
const onCell = share => share > (isDark() ? 0.58 : 0.7) ? "on-strong" : "on-weak";  // where text on a cell flips

const ruler = document.createElement("canvas").getContext("2d");
const measured = (words, size = 11, weight = 400) => {
  ruler.font = `${weight} ${size}px system-ui, sans-serif`;
  return ruler.measureText(words).width * 1.04;
};
const fitted = (words, width, size = 11, weight = 400) => {  // cut with an ellipsis where it would not fit
  if (measured(words, size, weight) <= width) return words;
  let cut = [...words].slice(0, 200);
  while (cut.length > 1 && measured(cut.join("") + "…", size, weight) > width) cut = cut.slice(0, -1);
  return cut.join("") + "…";
};
const wrapped = (words, width, size = 11) => {  // two lines at most
  if (measured(words, size, 600) <= width) return [words];
  const parts = words.split(" ");
  let n = parts.length - 1;
  while (n > 1 && measured(parts.slice(0, n).join(" "), size, 600) > width) n -= 1;
  return [fitted(parts.slice(0, n).join(" "), width, size, 600), fitted(parts.slice(n).join(" "), width, size, 600)].filter(Boolean);
};
const widest = (several, size = 11) => Math.max(0, ...several.map(words => measured(words, size)));

const ticks = (low, high, n = 4) => {  // about n round numbers between low and high
  const power = 10 ** Math.floor(Math.log10((high - low) / n || 1));
  const step = [1, 2, 2.5, 5, 10].map(f => f * power).reduce((best, s) => Math.abs((high - low) / s - n) < Math.abs((high - low) / best - n) ? s : best);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= high / step + 1e-9; i += 1) found.push(i === 0 ? 0 : i * step);
  return found;
};
const decimals = values => {  // as many as the distance between two ticks needs
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : 0.01;
  return [0, 1, 2, 3].find(digits => Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) < 1e-6) ?? 4;
};
const axisBelow = (x0, x1, y, values, x, format) => [line(x0, y, x1, y), ...values.map(v => [line(x(v), y, x(v), y + 4), text(x(v), y + 16, format(v), "mid m")])];
const linesAcross = (x0, x1, values, y, format) => values.map(v => [line(x0, y(v), x1, y(v), "gr"), text(x0 - 8, y(v) + 4, format(v), "end m")]);

const ticksIn = (low, high, width, room = 52) => ticks(low, high, Math.max(1, Math.min(5, Math.floor(width / room))));

// modules: eight colours, then the same with hatching, then with dots
const colour = module => module < 0 ? "var(--mU)" : `var(--m${module % 8})`;
const texture = module => module < 8 ? null : module < 16 ? "url(#hatch)" : "url(#dots)";
const key = (run, module) => `${RUNS.indexOf(run)}.${module}`;
const marked = (run, module) => ({"data-m": key(run, module)});
const clickable = (run, module) => ({"data-m": key(run, module), "data-go": key(run, module)});
const filled = (module, make) => [make(colour(module)), texture(module) && make(texture(module))];
const badge = (run, module, x, y, size = 16) => group(clickable(run, module),
  filled(module, fill => rect(x - size / 2, y - size / 2, size, size, {rx: 3, fill})),
  measured(run.modules[module].letter, 11, 700) < size && text(x, y + 4, run.modules[module].letter, texture(module) ? "letter over-texture" : `letter l${module % 8}`));
const swatch = (run, module) => H("span", {class: module < 0 ? "sw" : `sw c${module % 8}${module < 8 ? "" : module < 16 ? " hatched" : " dotted"}`, "aria-hidden": "true"}, module < 0 ? "" : run.modules[module].letter);

const taskLabel = (run, id) => (run.tasks.find(task => task.id === id) || {label: id}).label;
const layerLabel = (run, id) => id === null ? "all layers" : (run.layers.find(layer => layer.id === id) || {label: id}).label;
const taskColour = place => place === 0 ? "--tA" : place === 1 ? "--tB" : "--tS";
