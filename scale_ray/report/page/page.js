"use strict";
// Sorts tables and shows the trials of a grid's entry. All data is in the page; only one that a server shows fetches curves.

let data = readData();
let fetchCurve = null; // of a page that a server shows: asks it for a trial's curve, and returns its number in `data`
const SVG = "http://www.w3.org/2000/svg";
const SERIES = {
  target_accuracy: "student, target",
  teacher_accuracy: "teacher, target",
  source_val_accuracy: "student, held-out source",
  kept: "pseudo-labels kept",
  kept_accuracy: "correct among the kept",
};

function readData() {
  return JSON.parse(document.getElementById("trials")?.textContent ?? "null");
}

const valueOf = (column, trial) => data.columns[column].levels[data.columns[column].codes[trial]] ?? null;
const percent = (value) => (value === null ? "" : value.toFixed(2));

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Sorting

function keyOf(row, column) {
  const cell = row.cells[column];
  const text = (cell.dataset.value ?? cell.textContent.trim()).replace("\u2212", "-");
  return text === "" || text === "—" ? null : Number.isNaN(Number(text)) ? text : Number(text);
}

const words = new Intl.Collator("en", { numeric: true });
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return words.compare(a, b);
}

function sort(button) {
  const head = button.closest("th");
  const table = head.closest("table");
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  closeDetails(table);
  for (const body of table.tBodies) { // sort within a group and keep its label above its rows
    const rows = [...body.rows].filter((row) => !row.matches(".group"));
    const keyed = rows.map((row) => [keyOf(row, head.cellIndex), row]);
    const full = keyed.filter(([key]) => key !== null).sort(([a], [b]) => sign * compare(a, b));
    const empty = keyed.filter(([key]) => key === null); // rows without a value come last
    body.append(...[...full, ...empty].map(([, row]) => row));
  }
}

const sortHead = (text) => el("th", { scope: "col" }, el("button", { type: "button", class: "sort" }, text));

// The trials of an entry

function toggleEntry(button) {
  const scroll = button.closest(".scroll");
  const open = button.getAttribute("aria-expanded") === "true";
  closeEntry(scroll);
  if (open) return;
  button.setAttribute("aria-expanded", "true");
  const panel = entryPanel(button);
  scroll.after(panel);
  watchWidths(panel);
}

function closeEntry(scroll) {
  if (scroll.nextElementSibling?.matches(".drill")) scroll.nextElementSibling.remove();
  scroll.querySelectorAll(".entry[aria-expanded=true]").forEach((entry) => entry.setAttribute("aria-expanded", "false"));
}

function entryPanel(button) {
  const trials = button.dataset.trials.split(" ").filter(Boolean).map(Number);
  const rows = trials.map((trial) =>
    el("tr", { class: valueOf("status", trial) },
      el("td", {}, valueOf("pair", trial)),
      el("td", {}, String(valueOf("seed", trial))),
      el("td", { class: "status" }, valueOf("status", trial)),
      el("td", {}, percent(valueOf("target_accuracy", trial))),
      el("td", {}, el("button", { type: "button", class: "trial", "data-trial": trial, "aria-expanded": "false" },
        data.curves[trial] || isToFetch(trial) ? "curve, origin" : "origin")),
      el("td", {}, percent(valueOf("teacher_accuracy", trial))),
      el("td", {}, valueOf("wall_seconds", trial)?.toFixed(1) ?? "")));
  const [first, last] = [["pair", "seed", "status", "student (%)"], ["teacher (%)", "wall time (s)"]];
  const heads = [...first.map(sortHead), el("th"), ...last.map(sortHead)];
  const table = el("table", { class: "records" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
  const more = Number(button.dataset.more);
  return el("section", { class: "drill", "aria-label": `Trials of ${button.dataset.name}` },
    el("p", {}, el("strong", {}, button.dataset.name), ` · ${button.title} `,
      el("button", { type: "button", class: "close" }, "close")),
    el("div", { class: "scroll" }, table),
    ...(more ? [el("p", { class: "soft" }, `${more} more trials are not on this page; records.csv has all of them.`)] : []));
}

// One trial

function toggleTrial(button) {
  const row = button.closest("tr");
  if (button.getAttribute("aria-expanded") === "true") {
    row.nextElementSibling.remove();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  button.setAttribute("aria-expanded", "true");
  const trial = Number(button.dataset.trial);
  const inside = el("div", {}, ...chart(trial), difference(trial), facts(trial));
  row.after(el("tr", { class: "detail" }, el("td", { colspan: row.cells.length }, inside)));
  if (isToFetch(trial)) fetchCurve(trial).then((found) => inside.prepend(...chart(found)));
}

const isToFetch = (trial) => fetchCurve !== null && !data.curves[trial] && valueOf("status", trial) === "done";

function closeDetails(table) {
  table.querySelectorAll("tr.detail").forEach((row) => row.remove());
  table.querySelectorAll(".trial[aria-expanded=true]").forEach((button) => button.setAttribute("aria-expanded", "false"));
}

function facts(trial) {
  const entries = Object.entries(data.facts).flatMap(([name, column]) => {
    const value = valueOf(column, trial);
    return value === null ? [] : [el("dt", {}, name), el("dd", {}, fact(column, value))];
  });
  const cause = valueOf("cause", trial);
  const links = [...document.querySelectorAll("[data-cause]")].filter((node) => node.dataset.cause === cause);
  const link = links.map((node) => el("p", {}, el("a", { href: `#${node.id}` }, "cause and traceback")));
  return el("div", {}, ...link, el("dl", {}, ...entries));
}

function fact(column, value) {
  if (column === "versions") return Object.entries(JSON.parse(value)).map((pair) => pair.join(" ")).join(", ");
  if (column === "wall_seconds") return value.toFixed(1);
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

function difference(trial) {
  const common = data.common[valueOf("study", trial) ?? ""];
  const lines = data.config.flatMap((field) => {
    const [value, count, total, values] = common[field] ?? [null, 0, 0, 0];
    const own = valueOf(field, trial);
    if (own === value || values < 2) return [];
    const usual = value === null ? `, one of ${values} values in its study` : `; ${value} in ${count} of its study's ${total} trials`;
    return [el("li", {}, el("code", {}, `${field} = ${own}`), usual)];
  });
  if (!lines.length) return el("p", { class: "soft" }, "Besides pair and seed, its config has the most common values of its study.");
  return el("div", {}, el("p", {}, "Unlike most trials of its study, besides pair and seed:"), el("ul", {}, ...lines));
}

function chart(trial) {
  const curve = data.curves[trial];
  if (!curve) return [];
  const steps = data.steps[curve.steps];
  const present = Object.keys(SERIES).filter((name) => curve[name]);
  const values = present.flatMap((name) => curve[name]).filter((value) => value !== null);
  const spacing = Math.max(...values) - Math.min(...values) > 50 ? 20 : 10;
  const low = spacing * Math.floor(Math.min(...values) / spacing);
  const high = Math.max(low + spacing, spacing * Math.ceil(Math.max(...values) / spacing));
  const [width, height, left, bottom] = [520, 210, 34, 182];
  const last = Math.max(steps.at(-1), 1);
  const x = (step) => left + ((width - left - 12) * step) / last;
  const y = (value) => bottom - ((bottom - 10) * (value - low)) / (high - low);
  const parts = [];
  for (let tick = low; tick <= high; tick += spacing) {
    parts.push(svg("line", { class: "rule", x1: left, x2: width - 12, y1: y(tick), y2: y(tick) }));
    parts.push(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (const share of [0, 0.5, 1]) {
    const step = Math.round(last * share);
    parts.push(svg("text", { x: x(step), y: bottom + 18, "text-anchor": share === 1 ? "end" : "middle" },
      share === 1 ? `${step} steps` : String(step)));
  }
  for (const name of present) {
    // A point that was not measured is a gap in the line.
    let path = "";
    curve[name].forEach((value, index) => {
      if (value === null) return;
      const joined = index > 0 && curve[name][index - 1] !== null;
      path += `${joined ? "L" : "M"}${x(steps[index]).toFixed(1)} ${y(value).toFixed(1)}`;
    });
    parts.push(svg("path", { class: `line ${name}`, d: path }));
  }
  const label = `Curve of ${valueOf("pair", trial)}, seed ${valueOf("seed", trial)}, percent against step`;
  const keys = present.map((name) =>
    el("span", { class: "key" },
      svg("svg", { width: 26, height: 8, "aria-hidden": "true" }, svg("path", { class: `line ${name}`, d: "M0 4L26 4" })),
      ` ${SERIES[name]} (%)`));
  return [svg("svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...parts),
    el("p", { class: "keys" }, ...keys)];
}

// The table of records, by words and status; the address has both, so that it can be sent to somebody.

function filter(address) {
  const [find, status] = [document.getElementById("find"), document.getElementById("status")];
  if (!find) return;
  if (address) [find.value, status.value] = [address.get("find") ?? "", address.get("status") ?? ""];
  const wanted = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  closeDetails(document.getElementById("cells"));
  let shown = 0;
  for (const row of document.getElementById("cells").tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = (status.value && !row.classList.contains(status.value)) || !wanted.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  const any = find.value || status.value;
  document.getElementById("found").textContent = any ? `${shown} shown` : "";
  if (address) {
    if (any) find.closest("details").open = true;
    return;
  }
  const query = new URLSearchParams(Object.entries({ find: find.value, status: status.value }).filter(([, value]) => value));
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
}
document.addEventListener("input", (event) => {
  if (event.target.matches("#find, #status")) filter();
});
filter(new URLSearchParams(location.search));

// What is wider than its box says so.

function hint(box) {
  const wide = box.scrollWidth > box.clientWidth + 1;
  const line = box.previousElementSibling?.matches(".hint") ? box.previousElementSibling : null;
  if (!wide && line) line.remove();
  if (wide && !line && box.clientWidth > 0) box.before(el("p", { class: "hint" }, "Wider than the screen: scroll sideways \u2192"));
}
const widths = new ResizeObserver((entries) => entries.forEach((entry) => hint(entry.target)));
const watchWidths = (node) => node.querySelectorAll(".scroll, figure:not(.thumb)").forEach((box) => widths.observe(box));
watchWidths(document);

const ACTIONS = {
  sort,
  entry: toggleEntry,
  trial: toggleTrial,
  close: (button) => closeEntry(button.closest(".drill").previousElementSibling),
};
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  ACTIONS[button?.classList[0]]?.(button);
});
