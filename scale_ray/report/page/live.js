"use strict";
// A study's page while it runs: states of its cells as they change, its actions, and new tables once results have come.

const study = document.body.dataset.study;
const base = `/api/studies/${encodeURIComponent(study)}`;
const states = new Map(); // cell -> its state
const points = new Map(); // cell -> [step, target accuracy, accuracy on held-out source], as they were told
const REFRESH = 4000; // milliseconds between two loadings of the tables, at least
let refreshing = null;
let found = null; // the study, as it was told last
let me = { name: "", scope: "read" }; // who looks at it

fetch("/api/me").then(async (answer) => {
  if (!answer.ok) return;
  me = await answer.json();
  document.getElementById("who").textContent = ` · signed in as ${me.name}`;
  if (found) showActions(found);
});

const source = new EventSource(`${base}/events`);
source.addEventListener("change", (event) => {
  const told = JSON.parse(event.data);
  found = told.study;
  showActions(found);
  for (const [cell, state] of Object.entries(told.cells)) remember(cell, state);
  showStudy(told);
  markEntries();
  if (isOld()) refreshSoon();
});
source.addEventListener("error", () => say("The connection was lost; the page connects again by itself.", true));
source.addEventListener("open", () => say(""));

function remember(cell, state) {
  states.set(cell, state);
  if (state.status !== "running" || state.step === undefined) return;
  const curve = points.get(cell) ?? [];
  const known = [state.step, state.accuracy ?? null, state.source_val ?? null];
  if (known.slice(1).some((value) => value !== null) && curve.at(-1)?.[0] !== known[0]) curve.push(known);
  points.set(cell, curve);
}

// The study

const within = (seconds) =>
  seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;

function showStudy({ study: told, seconds_left: left, cluster, broken }) {
  const state = document.getElementById("state");
  state.textContent = told.state;
  state.className = `state ${{ running: "running", starting: "running", ending: "running", done: "done", failed: "failed" }[told.state] ?? "waiting"}`;
  const parts = [`${told.done} of ${told.cells} ${told.cells === 1 ? "cell" : "cells"} done`];
  if (told.failed) parts.push(`${told.failed} failed`);
  if (left && told.state === "running") parts.push(`about ${within(left)} left`);
  document.getElementById("counts").textContent = parts.join(", ");
  const problem = document.getElementById("problem");
  const problems = [told.problem, ...broken.slice(0, 3), broken.length > 3 ? `and ${broken.length - 3} more` : ""].filter(Boolean);
  problem.textContent = problems.join(" · ");
  problem.hidden = !problems.length;
  document.getElementById("use").textContent = [
    `${told.places} ${told.places === 1 ? "place" : "places"} of this study`,
    ...(cluster ? [`cluster: ${cluster}`] : []),
    ...(told.gpu_hours ? [`${told.gpu_hours.toFixed(1)} GPU hours this week`] : []),
  ].join(" · ");
  const weigh = document.getElementById("weigh");
  for (const name of ["priority", "share"]) {
    if (document.activeElement !== weigh.elements[name]) weigh.elements[name].value = told[name];
  }
}

function showActions(told) {
  const mine = me.scope === "admin" || (me.scope === "submit" && me.name === told.owner);
  const over = ["done", "failed", "cancelled"].includes(told.state);
  const possible = {
    pause: mine && !over && told.state !== "paused",
    cancel: mine && !over,
    resume: mine && ["paused", "failed", "cancelled"].includes(told.state),
    retry: mine && told.failed > 0,
  };
  for (const button of document.querySelectorAll("[data-action]")) button.hidden = !possible[button.dataset.action];
  document.getElementById("seeds").hidden = !mine;
  document.getElementById("weigh").hidden = !mine || over;
}

function say(text, isError = false) {
  const said = document.getElementById("said");
  said.textContent = text;
  said.classList.toggle("error", isError);
}

async function ask(method, path, body) {
  const answer = await fetch(base + path, {
    method,
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `the service answers ${answer.status}`);
  return told;
}

async function act(what, work) {
  say(`${what} …`);
  try {
    await work();
    say(`${what}: ordered`);
  } catch (error) {
    say(error.message, true);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  const action = button.dataset.action;
  if (action === "cancel" && !confirm("End this study? What is done stays in its store.")) return;
  act(button.textContent, () => ask("POST", `/${action}`));
});
document.getElementById("seeds").addEventListener("submit", (event) => {
  event.preventDefault();
  const seeds = event.target.elements.seeds.value.split(/[ ,]+/).filter(Boolean).map(Number);
  act("Add seeds", async () => {
    await ask("POST", "/extend", { axes: { seed: seeds } });
    event.target.reset();
  });
});
document.getElementById("weigh").addEventListener("submit", (event) => {
  event.preventDefault();
  const { priority, share } = event.target.elements;
  act("Set", () => ask("PATCH", "", { priority: Number(priority.value), share: Number(share.value) }));
});

// The places of the grids

const cellOf = (trial) => valueOf("cell", trial);

function markEntries() {
  for (const button of document.querySelectorAll("button.entry")) {
    const known = button.dataset.trials.split(" ").filter(Boolean).map((trial) => states.get(cellOf(Number(trial)))).filter(Boolean);
    const of = (status) => known.filter((state) => state.status === status);
    const [running, failed, waiting] = [of("running"), of("failed"), of("waiting")];
    button.dataset.state = running.length ? "running" : failed.length ? "failed" : waiting.length ? "waiting" : "done";
    const number = button.firstChild; // of a place without a record yet, the report's word `missing`
    if (["missing", "running", "waiting"].includes(number.data?.trim())) number.data = running.length ? "running" : waiting.length ? "waiting" : "missing";
    const words = [];
    if (running.length) {
      const shares = running.map((state) => state.share ?? 0);
      const accuracies = running.map((state) => state.accuracy).filter((value) => value !== undefined);
      const ofStudent = button.closest("table").dataset.metric === "target_accuracy";
      const soFar = ofStudent && accuracies.length ? `, ${mean(accuracies).toFixed(1)} so far` : "";
      words.push(`${running.length} running, ${Math.round(100 * mean(shares))} %${soFar}`);
    }
    if (failed.length) words.push(`${failed.length} failed`);
    if (waiting.length) words.push(`${waiting.length} waiting`);
    let line = button.querySelector(".so-far");
    if (!words.length) {
      line?.remove();
      continue;
    }
    if (!line) button.append((line = el("small", { class: "so-far" })));
    line.textContent = words.join(", ");
  }
  for (const button of document.querySelectorAll("#records button.trial")) {
    const row = button.closest("tr");
    const state = states.get(cellOf(Number(button.dataset.trial)));
    if (row.classList.contains("missing") && state) row.querySelector("td.status").textContent = state.status;
  }
  for (const [cell, curve] of points) drawSoFar(cell, curve);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function trialOf(cell) {
  const column = data.columns.cell;
  const code = column.levels.indexOf(cell);
  return code < 0 ? -1 : column.codes.indexOf(code);
}

function drawSoFar(cell, curve) {
  // The curve of a training that runs, where its row is opened next.
  if (curve.length < 2 || states.get(cell)?.status !== "running") return;
  const trial = trialOf(cell);
  if (trial < 0) return;
  data.steps.push(curve.map(([step]) => step));
  data.curves[trial] = {
    steps: data.steps.length - 1,
    target_accuracy: curve.map(([, target]) => target),
    source_val_accuracy: curve.map(([, , held]) => held),
  };
}

fetchCurve = async (trial) => {
  const cell = cellOf(trial);
  const curve = await curveOf(cell).catch((error) => say(error.message, true));
  const now = trialOf(cell); // the tables may have come anew meanwhile
  if (curve?.steps) {
    data.steps.push(curve.steps);
    data.curves[now] = { ...curve, steps: data.steps.length - 1 };
  }
  return now;
};

async function curveOf(cell) {
  const answer = await fetch(`${base}/cells/${cell}/curve`);
  const curve = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(curve.error ?? `the service answers ${answer.status}`);
  return curve;
}

// The tables anew

function isOld() {
  const seen = new Map(data.columns.cell.codes.map((code, trial) => [data.columns.cell.levels[code], valueOf("status", trial)]));
  if (Number(document.querySelector("main").dataset.total) !== states.size) return true; // it has grown
  const over = ["done", "failed", "stale"];
  return [...states].some(([cell, state]) => seen.has(cell) && over.includes(state.status) && seen.get(cell) !== state.status);
}

function refreshSoon() {
  refreshing ??= setTimeout(async () => {
    try {
      await refresh();
    } finally {
      refreshing = null;
    }
    if (isOld()) refreshSoon(); // of a large study, the service gives tables of some seconds ago
  }, REFRESH);
}

async function refresh() {
  const answer = await fetch(`/studies/${encodeURIComponent(study)}`);
  if (!answer.ok) return;
  const anew = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  const open = document.querySelector(".entry[aria-expanded=true]")?.dataset.name;
  const sections = new Set([...document.querySelectorAll("main details[open] > summary")].map((node) => node.textContent));
  for (const summary of anew.querySelectorAll("details > summary")) summary.parentElement.open ||= sections.has(summary.textContent);
  document.querySelector("main").replaceWith(anew);
  data = readData();
  watchWidths(anew);
  filter(new URLSearchParams(location.search));
  markEntries();
  const entry = [...document.querySelectorAll("button.entry")].find((button) => button.dataset.name === open);
  if (entry) toggleEntry(entry);
}

// The log

const log = document.getElementById("log");
async function showLog() {
  if (!log.open) return;
  const answer = await fetch(`${base}/log?lines=60`);
  const text = answer.ok ? await answer.text() : "";
  log.querySelector("pre").textContent = text.trim() || "Nothing yet.";
}
log.addEventListener("toggle", showLog);
setInterval(showLog, 5000);
