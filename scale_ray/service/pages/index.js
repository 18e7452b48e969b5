"use strict";
// The list of studies, kept up to date, and the form that submits one.

const form = document.querySelector("#submit form");

function say(text, isError = false) {
  const said = document.getElementById("said");
  said.textContent = text;
  said.classList.toggle("error", isError);
}

async function send(path) {
  let submission;
  try {
    submission = JSON.parse(document.getElementById("document").value);
  } catch (error) {
    throw new Error(`This is no JSON: ${error.message}`);
  }
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(submission) });
  const told = await answer.json();
  if (answer.ok) return told;
  const details = (told.detail ?? []).map(({ loc, msg }) => `${loc.slice(1).join(".")}: ${msg}`).join("\n");
  throw new Error(told.error ?? details);
}

const whole = new Intl.NumberFormat("en");
const within = (seconds) =>
  seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;

function planText(plan) {
  const shared = plan.steps < plan.steps_alone ? ` (${whole.format(plan.steps_alone)} if none were shared)` : "";
  const cost = plan.seconds === null ? "its time is known once some steps are measured" : `about ${within(plan.seconds)} of one place`;
  return `${plan.name}: ${whole.format(plan.cells)} cells, ${whole.format(plan.done)} done, ${whole.format(plan.to_do)} to do, ${whole.format(plan.steps)} steps${shared}; ${cost}.`;
}

async function trying(work) {
  say("Planning …");
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  }
}

document.getElementById("plan")?.addEventListener("click", () =>
  trying(async () => say(planText((await send("/api/studies?dry_run=1")).plan))));
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  trying(async () => {
    const told = await send("/api/studies");
    location.assign(`/studies/${encodeURIComponent(told.study.name)}`);
  });
});
document.getElementById("sign-out")?.addEventListener("click", async () => {
  await fetch("/logout", { method: "POST" });
  location.assign("/login");
});

function cell(text, className) {
  const node = document.createElement("td");
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

async function refresh() {
  if (document.hidden) return;
  const answer = await fetch("/api/studies").catch(() => null);
  if (!answer?.ok) return;
  const studies = await answer.json();
  if (!studies.length) return;
  const rows = studies.map((study) => {
    const row = document.createElement("tr");
    const link = document.createElement("a");
    link.href = `/studies/${encodeURIComponent(study.name)}`;
    link.textContent = study.name;
    const first = document.createElement("td");
    first.append(link);
    const submitted = new Date(1000 * study.created).toISOString().slice(0, 16).replace("T", " ");
    const state = cell(study.state, "state");
    state.title = study.problem;
    row.append(first, cell(study.owner), state,
      ...[study.done, study.failed, study.cells, study.places, study.priority, submitted].map((value) => cell(value)));
    return row;
  });
  document.querySelector("#studies tbody").replaceChildren(...rows);
}
setInterval(refresh, 4000);
