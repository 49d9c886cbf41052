// Keeps the page of a checkout up to date: asks how it gets on twice a second, until it is finished.

const EVERY = 500; // milliseconds
const AT_MOST = 5000; // between two tries while the site cannot be reached
const PATIENCE = 3000; // until a visitor is told that no worker may be there

const page = document.getElementById("progress");
const list = page.querySelector(".steps");
const noWorker = document.getElementById("no-worker");
const unreachable = document.getElementById("unreachable");

let queuedSince = null;

/** The status, or null when there is no answer. */
async function ask() {
  try {
    const answer = await fetch(page.dataset.url, { signal: AbortSignal.timeout(10_000) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

/** Only what is new is written: what has not changed is not read out again. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show(status) {
  page.dataset.state = status.state;
  write(page.querySelector(".headline"), status.headline);
  queuedSince = status.state === "queued" ? (queuedSince ?? Date.now()) : null;
  noWorker.hidden = queuedSince === null || Date.now() - queuedSince < PATIENCE;
  status.steps.forEach(showStep);
  page.querySelectorAll("form").forEach((form) => offer(form, status.actions.includes(form.dataset.action)));
}

/** A button that goes away hands the focus on, so that nobody at the keyboard is sent back to the top. */
function offer(form, offered) {
  if (!offered && form.contains(document.activeElement)) page.focus();
  form.hidden = !offered;
}

function showStep(step, place) {
  const line = list.children[place] ?? list.appendChild(list.firstElementChild.cloneNode(true));
  line.dataset.outcome = step.outcome;
  write(line.querySelector(".name"), step.label);
  write(line.querySelector(".key"), step.key ?? "");
  write(line.querySelector(".says"), step.says);
}

async function follow() {
  let pause = EVERY;
  let finished = "finished" in page.dataset;
  while (!finished) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    const status = await ask();
    unreachable.hidden = status !== null;
    pause = status ? EVERY : Math.min(pause * 2, AT_MOST);
    if (status) {
      show(status);
      finished = status.finished;
    }
  }
}

follow();
