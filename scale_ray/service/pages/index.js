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
  throw new Error(told.error);
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
  trying(async () => say((await send("/api/studies?dry_run=1")).plan.text)));
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
