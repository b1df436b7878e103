// What a page does: draws its plots in the page's colours, moves sliders, sorts and filters tables. All data stand in the page.
(() => {
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const make = (tag, fields = {}, ...inside) => {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(fields)) key in made ? (made[key] = value) : made.setAttribute(key, value);
  made.append(...inside);
  return made;
};
const seconds = value => {
  if (!value) return "0 s";
  const [size, name] = [[1, "s"], [1e-3, "ms"], [1e-6, "us"], [1e-9, "ns"]].find(each => Math.abs(value) >= each[0] * (1 - 1e-12)) || [1e-9, "ns"];
  return `${Number((value / size).toPrecision(4))} ${name}`;
};

// ---- Looks -----------------------------------------------------------------------------------------------------------------
const look = width => {
  const [ink, soft, grid, line] = ["--ink", "--soft", "--grid", "--line"].map(name => `var(${name})`);  // so that they follow the page, also onto paper
  const font = 'system-ui, "Segoe UI", "Liberation Sans", sans-serif';
  const axis = {labelColor: soft, titleColor: ink, tickColor: line, domainColor: line, gridColor: grid, labelFontSize: 12, titleFontSize: 12,
    titleFontWeight: "normal", labelLimit: Math.max(90, Math.min(240, width * 0.36)), labelFont: font, titleFont: font, labelOverlap: true};
  return {background: "transparent", view: {stroke: null}, axis, header: {labelColor: ink, titleColor: ink, labelFont: font, titleFont: font},
    legend: {labelColor: ink, titleColor: soft, labelFontSize: 12, labelFont: font, titleFont: font, columns: Math.max(1, Math.floor(width / 150)), labelLimit: 200, symbolOpacity: 1},
    title: {color: ink, font}, rule: {color: ink}, text: {color: ink, font}, customFormatTypes: false};
};
const views = new Map();
const ticks = "datum.value == 0 ? '0' : replace(format(datum.value, '.3~s'), regexp('([^0-9.]?)$'), ' $1s')";  // 200 ms
const number = "abs(datum.value) >= 1e4 ? format(datum.value, '~s') : format(datum.value, ',.6~g')";
const dim = text => parseInt(text.slice(1, 3), 16) + parseInt(text.slice(3, 5), 16) + parseInt(text.slice(5), 16) < 200;
const tint = text => matchMedia("(prefers-color-scheme: dark)").matches && !matchMedia("print").matches && dim(text) ? "#8b949e" : text;
const tinted = spec => JSON.parse(JSON.stringify(spec), (key, value) => typeof value === "string" && /^#[0-9a-f]{6}$/.test(value) ? tint(value) : value);
async function draw(target, spec, rows, renderer = "svg") {
  const width = Math.max(220, target.clientWidth);
  views.get(target)?.finalize();
  spec = tinted(spec);
  if (spec.height?.step) spec.height = spec.height.step * Math.max(1, new Set(rows.map(row => row.name)).size);
  const whole = {description: target.closest("[id]").getAttribute("aria-label"), ...spec, data: {name: "rows", values: rows},
    width: "container", autosize: {type: "fit-x", contains: "padding"}};
  const made = await vegaEmbed(target, whole, {actions: false, renderer, config: look(width), tooltip: {theme: "page"}});
  views.set(target, made);
  for (const each of target.querySelectorAll("svg, canvas")) each.setAttribute("aria-hidden", "true");  // the group around it says all in words
  return made;
}

// ---- Plots -----------------------------------------------------------------------------------------------------------------
const redraws = [];
function plot(target, content) {
  let rows = content.rows;
  const again = () => draw(target, content.spec, rows);
  const filtered = target.dataset.filtered;
  if (filtered) filters.set(filtered, [...(filters.get(filtered) || []), kept => { rows = kept ? content.rows.filter(row => kept.has(row.row)) : content.rows; views.get(target)?.view.data("rows", rows.map(row => ({...row}))).runAsync(); }]);
  return again;
}

// ---- The timeline: a canvas of its own, since tens of thousands of bars are zoomed at once -----------------------------------
function timeline(target, content) {
  const {lanes, names, colours, columns, end} = content;
  const {lane, name, category, start, seconds: lasts} = columns;
  const kinds = Object.keys(colours), tints = Object.values(colours);
  const canvas = make("canvas", {tabIndex: 0, role: "application"});
  canvas.setAttribute("aria-label", target.getAttribute("aria-label") + " Keys: plus and minus zoom, arrows move, 0 shows the whole step.");
  const box = make("div", {className: "span", hidden: true}), pane = make("div", {className: "pane"}, canvas, box);
  const told = make("output", {className: "told"});
  told.setAttribute("aria-live", "polite");
  let from = 0, to = end, margin = 0;
  const middle = () => (from + to) / 2;
  const zoom = (factor, at = middle()) => show(at - (at - from) * factor, at + (to - at) * factor);
  const move = share => show(from + share * (to - from), to + share * (to - from), true);
  const whole = () => show(0, end);
  function show(low, high, moved = false) {
    const least = end * 1e-7, length = Math.min(end, Math.max(least, high - low));
    low = Math.max(0, Math.min(moved ? low : (low + high - length) / 2, end - length));
    from = low; to = low + length;
    told.textContent = `${seconds(from)} to ${seconds(to)} of ${seconds(end)}`;
    paint();
  }
  const keys = make("p", {className: "keys"}, ...kinds.map((kind, at) => make("span", {}, Object.assign(make("i"), {style: `background:${tints[at]}`}), kind)));
  const bar = make("div", {className: "bar", role: "toolbar"});
  bar.setAttribute("aria-label", "Zoom of the timeline");
  for (const [text, label, act] of [["+", "Zoom in", () => zoom(0.5)], ["−", "Zoom out", () => zoom(2)], ["◀", "Earlier", () => move(-0.3)], ["▶", "Later", () => move(0.3)], ["Whole step", "Show the whole step", whole]]) {
    const button = make("button", {type: "button", textContent: text, onclick: act, title: label});
    button.setAttribute("aria-label", label);
    bar.append(button);
  }
  bar.append(told);
  const tip = make("div", {id: "", className: "vg-tooltip page-tip", hidden: true, role: "status"});
  target.append(bar, pane, keys, tip);
  const ROW = 26, TOP = 4, BOTTOM = 22;
  const x = at => margin + (at - from) / (to - from) * (canvas.clientWidth - margin - 8);
  const when = pixel => from + (pixel - margin) / (canvas.clientWidth - margin - 8) * (to - from);
  function paint() {
    const ratio = devicePixelRatio || 1, width = target.clientWidth, narrow = width < 560;
    const step = narrow ? 40 : ROW, height = TOP + lanes.length * step + BOTTOM;
    canvas.style.width = "100%"; canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "12px system-ui, 'Liberation Sans', sans-serif";
    margin = narrow ? 4 : 10 + Math.min(190, Math.max(...lanes.map(each => pen.measureText(each).width)));
    pen.clearRect(0, 0, width, height);
    const ink = colour("--ink"), soft = colour("--soft"), grid = colour("--grid"), inks = tints.map(tint);
    keys.querySelectorAll("i").forEach((each, at) => { each.style.background = inks[at]; });
    const most = Math.max(2, Math.floor((width - margin) / 110)), rough = (to - from) / most, ten = 10 ** Math.floor(Math.log10(rough));
    const tick = [1, 2, 5, 10].map(each => each * ten).find(each => each >= rough);
    pen.textBaseline = "middle";
    for (let at = Math.ceil(from / tick) * tick; at <= to + tick * 1e-6; at += tick) {
      pen.fillStyle = grid; pen.fillRect(x(at), TOP, 1, height - BOTTOM - TOP);
      pen.fillStyle = soft; pen.textAlign = x(at) > width - 40 ? "right" : x(at) < margin + 20 ? "left" : "center";
      pen.fillText(seconds(Math.abs(at) < tick * 1e-6 ? 0 : at), x(at), height - BOTTOM / 2);
    }
    pen.save(); pen.beginPath(); pen.rect(margin, 0, width - margin, height); pen.clip();
    for (let at = 0; at < lane.length; at++) {
      const left = x(start[at]), right = x(start[at] + lasts[at]);
      if (right < margin || left > width) continue;
      pen.fillStyle = inks[category[at]];
      pen.fillRect(left, TOP + lane[at] * step + (narrow ? 17 : 3), Math.max(right - left - (right - left > 3 ? 0.6 : 0), 0.7), step - (narrow ? 19 : 6));
    }
    pen.restore();
    pen.fillStyle = ink; pen.textAlign = narrow ? "left" : "right";
    lanes.forEach((each, at) => pen.fillText(clipped(pen, each, narrow ? width - 8 : margin - 8), narrow ? 4 : margin - 8, TOP + at * step + (narrow ? 9 : step / 2)));
  }
  const clipped = (pen, text, room) => { while (text.length > 4 && pen.measureText(text).width > room) text = text.slice(0, -2) + "…"; return text; };
  function at(event) {
    const step = target.clientWidth < 560 ? 40 : ROW, row = Math.floor((event.offsetY - TOP) / step), time = when(event.offsetX), near = 2 * (to - from) / canvas.clientWidth;
    let best = -1;
    for (let each = 0; each < lane.length; each++)
      if (lane[each] === row && start[each] - near <= time && time <= start[each] + lasts[each] + near && (best < 0 || lasts[each] < lasts[best])) best = each;
    return best;
  }
  let held = null;
  const inside = event => Math.max(margin, Math.min(event.offsetX, canvas.clientWidth - 8));
  canvas.onpointerdown = event => { held = inside(event); canvas.setPointerCapture(event.pointerId); };
  canvas.onpointermove = event => {
    if (held !== null && Math.abs(inside(event) - held) > 3) {
      Object.assign(box.style, {left: `${Math.min(held, inside(event))}px`, width: `${Math.abs(inside(event) - held)}px`, top: "0", height: `${canvas.clientHeight - BOTTOM}px`});
      box.hidden = false; tip.hidden = true;
      return;
    }
    const found = at(event);
    tip.hidden = found < 0;
    if (found >= 0) {
      tip.textContent = `${names[name[found]]}: ${seconds(lasts[found])} from ${seconds(start[found])} on (${kinds[category[found]]})`;
      Object.assign(tip.style, {left: `${Math.min(event.clientX + 12, innerWidth - 260)}px`, top: `${event.clientY + 16}px`});
    }
  };
  canvas.onpointerup = event => {
    const [left, right] = [Math.min(held ?? 0, inside(event)), Math.max(held ?? 0, inside(event))];
    if (held !== null && right - left > 3) show(when(left), when(right));
    held = null; box.hidden = true;
  };
  canvas.onpointerleave = () => { tip.hidden = true; };
  canvas.ondblclick = whole;
  canvas.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;  // the wheel alone scrolls the page
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, when(event.offsetX));
  }, {passive: false});
  canvas.onkeydown = event => {
    const act = {"+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), "0": whole, Home: whole}[event.key];
    if (act) { act(); event.preventDefault(); }
  };
  show(0, end);
  return paint;
}

// ---- Points behind sliders ---------------------------------------------------------------------------------------------------
function choice(target, content) {
  const {axes, points, base, measure} = content;
  const place = axes.map(each => each.at);
  const index = at => at.reduce((sum, each, axis) => sum * axes[axis].texts.length + each, 0);
  const found = make("dl", {className: "found"}), said = make("p", {role: "status"});
  const parts = make("div", {className: "chart"}), sweep = make("div", {className: "chart"}), sliders = make("div", {className: "choices"});
  axes.forEach((axis, number) => {
    const id = `${target.id}-s${number}`, output = make("output", {htmlFor: id, textContent: axis.texts[axis.at]});
    const input = make("input", {type: "range", id, min: 0, max: axis.texts.length - 1, step: 1, value: axis.at});
    input.setAttribute("aria-valuetext", axis.texts[axis.at]);
    input.oninput = () => { place[number] = Number(input.value); output.textContent = axis.texts[place[number]]; input.setAttribute("aria-valuetext", output.textContent); update(); };
    sliders.append(make("div", {}, make("label", {htmlFor: id}, axis.label, output), input));
  });
  const back = make("button", {type: "button", textContent: content.back, onclick: () => sliders.querySelectorAll("input").forEach((input, at) => { input.value = axes[at].at; input.oninput(); })});
  target.append(sliders, make("div", {className: "bar"}, back), said, found, parts, sweep);
  const rowsOf = (point, name) => Object.entries(point?.parts || {}).map(([category, amount]) => ({name, category, amount, text: seconds(amount)}));
  const colours = content.colours || {};
  const stacked = {height: {step: 34}, mark: {type: "bar", height: {band: 0.7}}, encoding: {
    y: {field: "name", type: "nominal", sort: null, title: null},
    x: {field: "amount", type: "quantitative", axis: {title: "exposed seconds", labelExpr: ticks, tickCount: 5}},
    color: {field: "category", type: "nominal", scale: {domain: Object.keys(colours), range: Object.values(colours)}, legend: {title: null, orient: "bottom"}},
    tooltip: ["name", "category", "text"].map(field => ({field, title: field === "text" ? "seconds" : field}))}};
  const swept = () => axes.flatMap((axis, number) => axis.texts.map((text, each) => {
    const point = points[index(place.map((before, at) => at === number ? each : before))];
    return {series: axis.label, x: content.log ? axis.values[each] : each / Math.max(1, axis.texts.length - 1), y: point?.value ?? null, text: `${text}: ${point?.text ?? point?.reason ?? "not simulated"}`, here: each === place[number]};
  })).filter(row => row.y !== null);
  const lines = () => ({height: 240, encoding: {
      x: {field: "x", type: "quantitative", scale: content.log ? {type: "log", base: 2, nice: false} : {nice: false}, axis: content.log ? {title: content.log, values: axes[0].values, labelExpr: "'x' + format(datum.value, '~g')"} : {title: "from the first to the last value of a slider", labels: false, ticks: false, grid: false}},
      y: {field: "y", type: "quantitative", scale: {zero: false}, axis: {title: measure, labelExpr: content.seconds ? ticks : number, tickCount: 5}},
      color: {field: "series", type: "nominal", scale: {range: content.series}, legend: {title: null, orient: "bottom"}},
      tooltip: [{field: "series", title: "slider"}, {field: "text", title: "point"}]},
    layer: [{mark: {type: "line", point: true}}, {mark: {type: "point", size: 140, filled: false, strokeWidth: 2}, encoding: {opacity: {condition: {test: "datum.here", value: 1}, value: 0}}}]});
  function update() {
    const point = points[index(place)], before = points[base];
    const facts = point?.facts || [];
    found.replaceChildren(...facts.map(([label, value]) => make("div", {}, make("dt", {textContent: label}), make("dd", {textContent: value}))));
    said.textContent = point?.reason ? `Not to be had: ${point.reason}` : point?.said || "";
    views.get(parts)?.view.data("rows", both(point, before)).runAsync();
    views.get(sweep)?.view.data("rows", swept()).runAsync();
    target.dataset.place = place.join(",");
  }
  const both = (point, before) => [...rowsOf(before, content.names[0]), ...rowsOf(point, content.names[1])];
  update();
  return async () => {
    const point = points[index(place)];
    if (point?.parts && Object.keys(colours).length) await draw(parts, stacked, both(point, points[base]));
    if (swept().length > 1) await draw(sweep, lines(), swept());
  };
}

// ---- Columns that the reader picks -------------------------------------------------------------------------------------------
function picked(target, content) {
  const {columns, rows, texts} = content, chosen = {...content.chosen};
  const canvas = make("div", {className: "chart"}), bar = make("div", {className: "bar"});
  for (const [key, label] of [["x", "across"], ["y", "up"], ["colour", "colour"]]) {
    const id = `${target.id}-${key}`, usable = key === "colour" ? ["", ...columns.filter(each => each.few).map(each => each.name)] : columns.filter(each => key === "x" || each.number).map(each => each.name);
    const select = make("select", {id, onchange: () => { chosen[key] = select.value; again(); }}, ...usable.map(each => make("option", {value: each, textContent: columns.find(column => column.name === each)?.title || each || "none", selected: each === chosen[key]})));
    bar.append(make("label", {htmlFor: id, textContent: label}), select);
  }
  const boxes = ["x", "y"].map(key => { const input = make("input", {type: "checkbox", checked: content.log?.includes(key) || false, onchange: () => again()}); bar.append(make("label", {}, input, ` log ${key}`)); return input; });
  target.append(bar, canvas);
  let kept = null;
  const filtered = target.dataset.filtered;
  if (filtered) filters.set(filtered, [...(filters.get(filtered) || []), found => { kept = found; again(); }]);
  function again() {
    const by = name => columns.find(each => each.name === name), place = columns.indexOf.bind(columns);
    const [x, y, tint] = [by(chosen.x), by(chosen.y), by(chosen.colour)];
    const at = {x: place(x), y: place(y), tint: tint ? place(tint) : -1};
    const shown = rows.map((row, number) => ({x: row[at.x], y: row[at.y], tint: tint ? String(texts[number][at.tint]) : "", row: number, text: columns.filter(each => each.told).map(each => `${each.title} ${texts[number][place(each)]}`).join(", ")}))
      .filter(row => row.x !== null && row.y !== null && (!kept || kept.has(row.row)));
    const scale = (column, box) => { const numbers = shown.map(row => row[column]).filter(each => typeof each === "number"); return box.checked && numbers.every(each => each > 0) ? {type: "log", nice: false} : {zero: false}; };
    const label = column => /seconds/.test(column.unit) ? ticks : column.unit === "share" ? "format(datum.value, '.3~p')" : number;
    const lined = x.number && (tint || shown.every((row, each) => !each || row.x > shown[each - 1].x)) && content.line;
    return draw(canvas, {height: 320, mark: lined ? {type: "line", point: {size: 50}} : {type: "point", filled: true, size: 60, opacity: 0.75}, encoding: {
      x: x.number ? {field: "x", type: "quantitative", scale: scale("x", boxes[0]), axis: {title: x.title, labelExpr: label(x), tickCount: 6}} : {field: "x", type: "nominal", sort: null, axis: {title: x.title, labelAngle: -30}},
      y: {field: "y", type: "quantitative", scale: scale("y", boxes[1]), axis: {title: y.title, labelExpr: label(y), tickCount: 5}},
      ...(tint ? {color: {field: "tint", type: "nominal", sort: null, scale: {range: content.series}, legend: {title: tint.title, orient: "bottom"}}} : {color: {value: content.series[0]}}),
      tooltip: [{field: "row", title: "point"}, {field: "text", title: "what"}]}}, shown);
  }
  return again;
}

// ---- Tables ------------------------------------------------------------------------------------------------------------------
const filters = new Map();
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").onclick = () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(each => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const key = row => row.cells[column].dataset.order, text = row => row.cells[column].textContent;
      const compared = (left, right) => key(left) !== undefined && key(right) !== undefined ? key(left) - key(right) : text(left).localeCompare(text(right), "en", {numeric: true});
      const full = row => text(row) !== "";  // empty cells stay last
      body.append(...[...body.rows].sort((left, right) => full(right) - full(left) || (falls ? -1 : 1) * compared(left, right)));
    };
  });
  const field = document.querySelector(`input[data-filter="${table.dataset.name}"]`);
  if (!field) continue;
  const titles = heads.map(each => each.textContent.trim().toLowerCase());
  const test = word => {
    const parts = /^(.+?)(<=|>=|<|>|=)(.+)$/.exec(word), column = parts ? titles.findIndex(each => each.replace(/ /g, "") === parts[1].replace(/ /g, "")) : -1;
    if (column < 0) return row => row.textContent.toLowerCase().includes(word);
    const wanted = Number(parts[3]);
    return row => {
      const cell = row.cells[column], number = Number(cell.dataset.order ?? NaN);
      if (Number.isNaN(wanted) || Number.isNaN(number)) return parts[2] === "=" && cell.textContent.toLowerCase().trim() === parts[3];
      return {"<": number < wanted, "<=": number <= wanted, ">": number > wanted, ">=": number >= wanted, "=": number === wanted}[parts[2]];
    };
  };
  field.oninput = () => {
    const tests = field.value.toLowerCase().replace(/\s*(<=|>=|<|>|=)\s*/g, "$1").split(/\s+/).filter(Boolean).map(test);
    const left = new Set();
    rows.forEach((row, at) => { row.hidden = !tests.every(each => each(row)); if (!row.hidden) left.add(at); });
    document.getElementById(`${table.dataset.name}-left`).textContent = tests.length ? `${left.size} of ${rows.length}` : "";
    for (const each of filters.get(table.dataset.name) || []) each(tests.length ? left : null);
  };
}

// ---- Begin -------------------------------------------------------------------------------------------------------------------
const KINDS = {plot, timeline, choice, picked};
for (const [name, content] of Object.entries(DATA)) {
  const target = document.getElementById(name);
  redraws.push([target, KINDS[content.kind](target, content)]);
}
let drawing = Promise.resolve();
const drawAll = () => drawing = drawing.then(async () => {
  const near = target => target.getBoundingClientRect().top < 1.5 * innerHeight;  // what is seen at once comes first
  const count = name => { document.documentElement.dataset[name] = String(Number(document.documentElement.dataset[name] || 0) + 1); };
  for (const [, each] of redraws.filter(([target]) => near(target))) await each();
  count("ready");
  for (const [, each] of redraws.filter(([target]) => !near(target))) { await new Promise(go => setTimeout(go)); await each(); }
  count("drawn");
});
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
const repaint = () => redraws.filter(([target]) => target.classList.contains("timeline")).forEach(([, each]) => each());  // paper does not wait
matchMedia("print").addEventListener("change", repaint);
for (const event of ["beforeprint", "afterprint"]) addEventListener(event, repaint);
let width = innerWidth, waiting;
addEventListener("resize", () => { if (innerWidth === width) return; width = innerWidth; clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
})();
