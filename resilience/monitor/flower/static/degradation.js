// The Degradation page: polls its data once a second while it is seen, and sends orders.
// Whatever comes from the server is put in as text, never as HTML.
(() => {
  "use strict";

  const POLL_MS = 1000;
  const LEVELS = ["FULL", "STALE", "REDUCED", "STATIC", "FAILED"];
  const byId = (id) => document.getElementById(id);
  const home = byId("degradation").dataset.home;
  const taskPage = (id) => home.replace(/degradation$/, "task/") + encodeURIComponent(id);
  let data = null;
  let timer = null;
  let chart = null;
  let letters = null;
  let lettersAt = 0;
  const selected = new Set();

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  function duration(seconds) {
    const size = Math.abs(seconds);
    if (size < 90) return `${Math.round(seconds)} s`;
    if (size < 5400) return `${Math.round(seconds / 60)} min`;
    return size < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
  }
  const isTime = (at) => typeof at === "number" && at > 0;
  const ago = (at) => (isTime(at) ? `${duration(Math.max(0, data.now - at))} ago` : "");
  const until = (at) => (isTime(at) ? `in ${duration(Math.max(0, at - data.now))}` : "");
  const clock = (at) => (isTime(at) ? new Date(at * 1000).toLocaleTimeString() : "");
  const badness = (level) => ({ FULL: "dg-good", FAILED: "dg-bad" })[level] || "dg-warn";
  const cell = (text, className) => ({ text: text === null || text === undefined ? "" : String(text), className });

  // --- tables: rows are kept by key, so that focus and selection survive an update

  function fill(id, rows, keyOf, cellsOf, actionsOf) {
    const table = byId(id);
    const body = table.tBodies[0];
    const labels = [...table.tHead.rows[0].cells].map((one) => one.textContent);
    const keys = [];
    for (const item of rows) {
      let key = String(keyOf(item));
      while (keys.includes(key)) key += "'";
      keys.push(key);
    }
    // First, so that those that stay are not moved: a row that is moved loses the focus.
    for (const row of [...body.rows]) if (!keys.includes(row.dataset.key)) row.remove();
    const kept = new Map([...body.rows].map((row) => [row.dataset.key, row]));
    rows.forEach((item, place) => {
      const key = keys[place];
      let row = kept.get(key);
      if (!row) {
        row = make("tr");
        row.dataset.key = key;
      }
      if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] || null);
      row.item = item;
      const cells = cellsOf(item);
      cells.forEach((one, column) => show(row, column, one, labels[column]));
      if (actionsOf) showActions(row, cells.length, actionsOf(item), labels[cells.length]);
    });
    const empty = table.nextElementSibling;
    empty.well ??= empty.textContent;
    const away = (table.dataset.source || "").split(" ").filter((name) => data.unknown[name]);
    empty.textContent = away.length ? `Not known while there is no answer: ${away.join(", ")}.` : empty.well;
  }

  function cellAt(row, column, label) {
    while (row.cells.length <= column) row.insertCell();
    row.cells[column].dataset.label = label;
    return row.cells[column];
  }

  function show(row, column, value, label) {
    const place = cellAt(row, column, label);
    const one = value && typeof value === "object" ? value : cell(value);
    const mark = JSON.stringify([one.text, one.className, one.href, one.details, one.checkbox]);
    if (place.mark === mark) return;
    place.mark = mark;
    place.replaceChildren();
    place.className = one.className || "";
    if (one.checkbox) place.append(checkbox(one.checkbox, one.text));
    else if (one.href) place.append(Object.assign(make("a", one.text), { href: one.href }));
    else place.append(make("span", one.text));
    if (one.details) {
      const details = make("details");
      details.append(make("summary", "Details"));
      for (const [name, text] of one.details) {
        details.append(make("strong", name), Object.assign(make("pre", text), { tabIndex: 0 }));
      }
      place.append(details);
    }
  }

  function checkbox(id, label) {
    const box = make("input", undefined, "dg-check");
    box.type = "checkbox";
    box.checked = selected.has(id);
    box.setAttribute("aria-label", `Select ${label}`);
    box.addEventListener("change", () => {
      if (box.checked) selected.add(id);
      else selected.delete(id);
      showTools();
    });
    return box;
  }

  function showActions(row, column, actions, label) {
    const place = cellAt(row, column, label);
    const shown = data.no_actions ? actions.filter((one) => one.reads) : actions;
    const mark = shown.map((one) => one.label).join("|");
    row.actions = shown; // also where the buttons stay: they carry the version of the row
    if (place.mark === mark) return;
    place.mark = mark;
    place.replaceChildren(
      ...shown.map((one, index) => {
        const button = make("button", one.label, "btn btn-sm btn-outline-secondary");
        button.type = "button";
        button.setAttribute("aria-label", `${one.label} ${row.dataset.key}`);
        button.addEventListener("click", () => {
          const now = row.actions[index];
          if (now.reads) now.reads();
          else ask(now);
        });
        return button;
      }),
    );
  }

  // --- orders

  const dialog = byId("order");
  const form = byId("order-form");
  let asked = null;

  function ask(order) {
    asked = order;
    byId("order-title").textContent = order.title || `${order.label}: ${order.order.name || ""}`;
    byId("order-what").textContent = order.what || "";
    byId("order-error").textContent = "";
    byId("order-go").textContent = order.label;
    for (const label of form.querySelectorAll("[data-for]")) label.hidden = !(order.fields || []).includes(label.dataset.for);
    form.reset();
    if (order.edited) {
      form.elements.args.value = JSON.stringify(order.edited.args, null, 1);
      form.elements.kwargs.value = JSON.stringify(order.edited.kwargs, null, 1);
    }
    dialog.showModal();
    form.elements.reason.focus();
  }

  function orderOf() {
    const fields = asked.fields || [];
    const order = { ...asked.order, reason: form.elements.reason.value };
    if (fields.includes("seconds")) order.seconds = Number(form.elements.seconds.value);
    if (fields.includes("level")) order.level = Number(form.elements.level.value);
    if (fields.includes("share")) order.share = Number(form.elements.share.value);
    if (fields.includes("edited")) order.edited = { args: JSON.parse(form.elements.args.value), kwargs: JSON.parse(form.elements.kwargs.value) };
    return order;
  }

  function cookie(name) {
    const found = document.cookie.split("; ").find((one) => one.startsWith(`${name}=`));
    return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
  }

  async function send(event) {
    event.preventDefault();
    const go = byId("order-go");
    go.disabled = true;
    try {
      const answer = await fetch(`${home}/act`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-XSRFToken": cookie("_xsrf") },
        body: JSON.stringify(orderOf()),
      });
      const text = await answer.text();
      let said = {};
      try { said = JSON.parse(text); } catch { said = { error: text }; }
      if (!answer.ok) throw new Error(said.error || `Flower answered ${answer.status}`);
      byId("said").textContent = said.done;
      dialog.close();
      selected.clear();
      for (const box of document.querySelectorAll(".dg-check")) box.checked = false;
      lettersAt = 0;
      poll();
    } catch (error) {
      byId("order-error").textContent = `Nothing was done: ${error.message}`;
    } finally {
      go.disabled = false;
    }
  }
  form.addEventListener("submit", send);
  byId("order-cancel").addEventListener("click", () => dialog.close());

  const about = (label, action, row, name, fields = []) => ({ label, fields, order: { action, name, version: row.version } });

  function someLetters(label, action, which, jobs, version) {
    const what = action === "replay" && jobs > 5 ? "A sample of 5 runs first; the others follow if none of these fails." : "";
    return { label, what, title: `${label}: ${jobs} dead letter${jobs === 1 ? "" : "s"}`, order: { action, which, jobs, version } };
  }

  const sameAs = ({ fingerprint, task, dependency }) => ({ fingerprint, task, dependency });
  const holdOf = (one) => `by ${one.actor}: ${one.reason}; ends ${until(one.until)}`;
  const causeOf = (one) => `${one.task} ${one.fingerprint}`;

  // --- what is shown

  function showHead() {
    const level = byId("level");
    level.textContent = data.level || "Not known";
    level.className = `dg-level ${badness(data.level)}`;
    const brownout = data.brownout && data.brownout.order !== "off" ? `Brownout: ${data.brownout.order}. ` : "";
    byId("since").textContent = brownout + (data.since ? `Since ${clock(data.since)}, ${ago(data.since)}` : "");
    const minutes = (data.below_full || []).map(([name, count]) => `${name} ${count}`).join(", ");
    byId("below-full").textContent = minutes && `Minutes below FULL this month: ${minutes}`;
    byId("brownout").hidden = Boolean(data.no_actions) || !data.brownout;
    byId("no-actions").hidden = !data.no_actions;
    byId("no-actions").textContent = `Nothing can be ordered here: ${data.no_actions}.`;
    const unknown = Object.entries(data.unknown).map(([name, why]) => `Not known: what the ${name} has; ${why}`);
    const list = byId("unknown");
    if (list.mark !== unknown.join("\n")) {
      list.mark = unknown.join("\n");
      list.replaceChildren(...unknown.map((text) => make("li", text)));
    }
  }

  function showTables() {
    fill("reasons", [...(data.reasons || []), ...(data.notes || [])], (one) => `${one.kind} ${one.name}`, (one) => [
      `${one.kind} ${one.name}`, cell(one.level || "note", one.level ? badness(one.level) : ""), ago(one.since), one.why,
      one.users ? `users ${one.users}` : "", (one.next || []).join("\n"),
    ]);
    fill("breakers", data.breakers || [], (one) => one.dependency, (one) => [
      one.dependency, cell(one.state, one.state === "closed" ? "dg-good" : /open/.test(one.state) ? "dg-bad" : "dg-warn"),
      one.calls ? `${one.failed} of ${one.calls}` : "", ago(one.since), [one.why, one.reason && `${one.actor}: ${one.reason}`].filter(Boolean).join("; "),
      one.error || "", one.seconds_left === null ? "" : `in ${duration(one.seconds_left)}`,
    ], (one) => [
      about("Open", "breaker open", one, one.dependency, ["seconds"]), about("Close", "breaker close", one, one.dependency, ["seconds"]),
      about("Observe", "breaker observe", one, one.dependency, ["seconds"]), about("Reset", "breaker reset", one, one.dependency),
    ]);
    fill("bulkheads", data.bulkheads || [], (one) => one.name, (one) => [
      one.name,
      cell([one.depth, Object.entries(one.queues).filter(([name, depth]) => depth && name !== one.name).map(([name, depth]) => `(${name}: ${depth})`).join(" ")].filter((part) => part !== null && part !== "").join(" ")),
      one.oldest === null ? "" : duration(one.oldest), cell(one.consumers, one.depth && !one.consumers ? "dg-bad" : ""), one.in_flight,
      cell([one.held && holdOf(one.held), ...one.held_queues.map((lane) => `${lane.name} ${holdOf(lane)}`)].filter(Boolean).join("; "), "dg-warn"),
    ], (one) => [
      ...(one.held || one.held_queues.length ? [about("Release", "release", one, one.name)] : []),
      ...(one.held ? [] : [about("Hold", "hold", { version: 0 }, one.name, ["seconds"])]),
    ]);
    fill("flags", data.flags || [], (one) => one.feature, (one) => [
      one.feature, cell(one.enabled ? "on" : `off (${one.level})`, one.enabled ? "dg-good" : "dg-warn"),
      one.trial ? `${one.source}, on trial` : one.source, one.reason, ago(one.since), until(one.until), cost(one.cost),
    ], (one) => [
      about("On", "flag on", one, one.feature, ["seconds"]), about("Off", "flag off", one, one.feature, ["seconds"]), about("Auto", "flag auto", one, one.feature),
      { ...about(one.trial ? "End trial" : "Trial", "trial", { version: one.trial || 0 }, one.feature, one.trial ? [] : ["share", "seconds"]) },
    ]);
    const waiting = (data.jobs || []).filter((one) => one.state !== "dead").sort((a, b) => b.overdue_seconds - a.overdue_seconds);
    fill("due", waiting, (one) => `${one.dependency} ${one.state}`, (one) => [
      one.dependency, one.state, one.jobs + (one.more ? "+" : ""),
      one.overdue_seconds > 0 ? cell(`${duration(one.overdue_seconds)} ago`, one.overdue_seconds > 60 ? "dg-warn" : "") : `in ${duration(-one.overdue_seconds)}`,
    ]);
    fill("causes", data.causes || [], causeOf, (one) => [
      one.letters, `${one.task || ""} (${one.dependency || ""})`, `${one.reason || ""}: ${one.last_error}`, ago(one.oldest), ago(one.newest),
    ], (one) => one.fingerprint ? [
      { label: "Show", reads: () => filterBy(sameAs(one)) },
      someLetters("Replay all", "replay", sameAs(one), one.letters, one.newest),
      someLetters("Discard all", "discard", sameAs(one), one.letters, one.newest),
    ] : []);
    fill("replays", data.replays || [], (one) => one.id, (one) => [
      one.what, `${one.actor}: ${one.reason}`, `${one.replayed} of ${one.total}`, one.done === undefined ? "" : one.done, cell(one.state, /stopped/.test(one.state) ? "dg-bad" : ""),
    ]);
    fill("answers", data.answers || [], (one) => `${one.at} ${one.id}`, (one) => [
      clock(one.at), named(one),
      cell(one.level, badness(one.level)), one.fields.reason || (one.fields.missing ? `missing: ${one.fields.missing}` : ""), rest(one.fields),
    ]);
    fill("drills", data.drills || [], (one) => `${one.dependency} ${one.task}`, (one) => [
      one.task, one.last ? ago(one.last.at) : "not within a day",
      cell(one.drills ? `${percent(one.answered, one.drills)} of ${one.drills}${one.failed_at ? `; did not ${ago(one.failed_at)}` : ""}` : "none yet", one.failed_at ? "dg-bad" : ""),
      cell(one.worst, one.worst ? badness(one.worst) : ""), lastDrill(one.last),
      one.last ? Object.entries(one.last.reasons).map(([step, why]) => `${step}: ${why}`).join("; ") : "",
    ]);
    fill("timeline", data.timeline || [], (one) => `${one.at} ${one.what} ${one.name}`, (one) => [clock(one.at), one.what, one.name, one.actor, one.text]);
  }

  function named(one) {
    const text = one.fields.name || one.fields.task || one.fields.call || one.id;
    return one.id && one.kind !== "task-partial" ? { text, href: taskPage(one.id) } : text;
  }
  const percent = (part, whole) => `${Math.floor((100 * part) / whole)} %`;
  function lastDrill(last) {
    if (!last) return "";
    if (last.source === null) return cell("none", "dg-bad");
    const age = last.age === null ? "" : `, ${duration(last.age)} old`;
    return `${last.level} by ${last.source} in ${Number(last.seconds).toPrecision(2)} s${age}`;
  }
  const rest = (fields) => Object.entries(fields).filter(([name]) => !["name", "level", "reason", "event"].includes(name)).map(([name, value]) => `${name}: ${value}`).join(", ");
  function cost(one) {
    if (!one || one.seconds === null || one.seconds === undefined) return "";
    const half = one.low === undefined ? " s (given)" : ` s ± ${((one.high - one.low) / 2).toPrecision(2)}`;
    return `${Number(one.seconds).toPrecision(3)}${half}`;
  }

  // --- dead letters

  const filter = byId("filter");
  const filtered = () => Object.fromEntries([...new FormData(filter)].filter(([, value]) => value.trim()));
  function filterBy(which) {
    filter.reset();
    for (const [name, value] of Object.entries(which)) filter.elements[name].value = value;
    open();
  }
  function open() {
    selected.clear();
    lettersAt = 0;
    byId("letters-panel").hidden = false;
    readLetters();
  }
  filter.addEventListener("submit", (event) => { event.preventDefault(); open(); });
  filter.addEventListener("reset", () => { byId("letters-panel").hidden = true; letters = null; });

  async function readLetters() {
    if (byId("letters-panel").hidden || performance.now() - lettersAt < 5000) return;
    lettersAt = performance.now();
    const answer = await fetch(`${home}/letters?${new URLSearchParams(filtered())}`);
    letters = await answer.json();
    if (letters.error) letters = { jobs: 0, letters: [], error: letters.error };
    showLetters();
  }

  function showLetters() {
    byId("letters-count").textContent = letters.error || `${letters.jobs} match; the oldest ${letters.letters.length} are shown.`;
    fill("letters", letters.letters, (one) => one.id, (one) => [
      { text: one.id, checkbox: one.id }, ago(one.died), { text: one.task, href: taskPage(one.id) }, one.attempts,
      { text: `${one.reason}: ${one.error}`, details: [
        ["args", JSON.stringify(one.args)], ["kwargs", JSON.stringify(one.kwargs)], ["traceback", one.traceback], ["id, cause", `${one.id} ${one.fingerprint}`],
      ] },
    ], (one) => {
      const which = { ids: [one.id] };
      const edit = { ...someLetters("Edit", "edit", which, 1, one.version), title: `Edit and replay ${one.task}`, fields: ["edited"], edited: one };
      return [someLetters("Replay", "replay", which, 1, one.version), ...(one.editable ? [edit] : []), someLetters("Discard", "discard", which, 1, one.version)];
    });
    showTools();
  }

  function showTools() {
    const which = filtered();
    const any = Object.keys(which).length && letters.jobs;
    const chosen = letters.letters.filter((one) => selected.has(one.id));
    const newest = Math.max(0, ...chosen.map((one) => one.version));
    const ids = { ids: chosen.map((one) => one.id) };
    const orders = data.no_actions ? [] : [
      ...(chosen.length ? [someLetters(`Replay ${chosen.length} selected`, "replay", ids, chosen.length, newest), someLetters(`Discard ${chosen.length} selected`, "discard", ids, chosen.length, newest)] : []),
      ...(any ? [someLetters(`Replay all ${letters.jobs} that match`, "replay", which, letters.jobs, letters.version), someLetters(`Discard all ${letters.jobs} that match`, "discard", which, letters.jobs, letters.version)] : []),
    ];
    const mark = orders.map((one) => one.label).join("|");
    const tools = byId("letters-tools");
    tools.orders = orders;
    if (tools.mark === mark) return;
    tools.mark = mark;
    tools.replaceChildren(...orders.map((one, index) => {
      const button = make("button", one.label, "btn btn-sm btn-outline-secondary");
      button.type = "button";
      button.addEventListener("click", () => ask(tools.orders[index]));
      return button;
    }));
  }

  // --- chart

  function showChart() {
    const [times, levels] = data.levels;
    const place = byId("chart");
    const known = levels.filter((one) => one !== null);
    const worst = known.length ? LEVELS[Math.max(...known)] : "not known";
    place.setAttribute("aria-label", `Level now ${data.level || "not known"}; worst of the last hour ${worst}`);
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const look = [place.clientWidth, document.documentElement.dataset.bsTheme].join();
    if (chart && place.look !== look) { chart.destroy(); chart = null; }
    place.look = look;
    if (!chart) {
      const axis = { stroke: colour("--flower-text-muted"), grid: { stroke: colour("--bs-border-color"), width: 1 }, ticks: { show: false } };
      chart = new uPlot({
        width: place.clientWidth, height: 180, legend: { show: false }, cursor: { show: false },
        scales: { x: { range: () => [data.now - 3600, data.now] }, y: { range: [-0.2, 4.2] } },
        axes: [axis, { ...axis, size: 80, splits: () => [0, 1, 2, 3, 4], values: (_, all) => all.map((one) => LEVELS[one]) }],
        series: [{}, { stroke: colour("--flower-danger"), width: 2, fill: colour("--flower-danger") + "22", paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } }],
      }, [times, levels], place);
    } else chart.setData([times, levels]);
  }

  // --- life

  async function poll() {
    clearTimeout(timer);
    if (document.hidden) return;
    const live = byId("live");
    try {
      const answer = await fetch(`${home}/data`, { signal: AbortSignal.timeout(15000) });
      if (!answer.ok || !/json/.test(answer.headers.get("Content-Type"))) throw new Error(`it answered ${answer.status}`);
      data = await answer.json();
      showHead();
      showTables();
      showChart();
      if (letters) showTools();
      await readLetters();
      const age = data.began ? data.now - data.began : 0;
      live.textContent = age > 3 ? `As of ${duration(age)} ago` : "Live";
    } catch (error) {
      live.textContent = `Flower does not answer: ${error.message}. Trying again.`;
    }
    clearTimeout(timer);
    timer = setTimeout(poll, POLL_MS);
  }

  byId("brownout").addEventListener("click", () => ask({ label: "Order brownout", title: "Brownout", fields: ["level", "seconds"], what: "Sheds every feature whose level is at most this one.", order: { action: "brownout", version: data.brownout.version } }));
  document.addEventListener("visibilitychange", () => {
    byId("live").textContent = document.hidden ? "Paused while nobody looks" : "Live";
    poll();
  });
  poll();
})();
