"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const place = document.getElementById("charts");
  const levels = ["FULL", "STALE", "REDUCED", "STATIC", "FAILED"];
  const colours = ["#2166ac", "#b2182b", "#1b7837", "#e08214", "#762a83", "#35978f"];
  const stepped = { paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } };
  const shared = { key: "gameday" };

  function shade(chart) {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.fillStyle = "rgba(0, 0, 0, 0.1)";
    for (const fault of data.faults) {
      const from = chart.valToPos(fault.begin, "x", true);
      const width = Math.max(2, chart.valToPos(fault.end, "x", true) - from);
      ctx.fillRect(from, bbox.top, width, bbox.height);
    }
    ctx.restore();
  }

  function show(title, series, columns, axis = {}, y = {}) {
    const heading = document.createElement("h2");
    heading.textContent = title;
    place.append(heading);
    const end = Math.max(1, data.plan.seconds);
    new uPlot({
      width: place.clientWidth, height: 180, cursor: { sync: shared },
      scales: { x: { time: false, range: [0, end] }, y },
      axes: [{ values: (_, all) => all.map((one) => `${one} s`) }, { size: 80, ...axis }],
      series: [{ label: "second" }, ...series.map((one, at) => (
        { label: one, stroke: colours[at % colours.length], width: 2, ...stepped }))],
      hooks: { drawClear: [shade] },
    }, columns, place);
  }

  const seconds = Array.from({ length: Math.ceil(data.plan.seconds) + 1 }, (_, at) => at);
  const by = seconds.map((at) => data.requests.filter((one) => Math.floor(one.at) === at));
  const failed = by.map((all) => all.filter((one) => one.level === "FAILED").length);
  const degraded = by.map((all, at) => (
    all.filter((one) => one.level !== "FULL").length - failed[at]));
  const load = [seconds, by.map((all) => all.length), failed, degraded];
  show("Load: requests a second", ["requests", "failed", "degraded"], load);

  const slowest = by.map((all) => (
    all.length ? Math.max(...all.map((one) => one.seconds ?? 0)) : null));
  const median = by.map((all) => (
    all.length ? all.map((one) => one.seconds ?? 0).sort((a, b) => a - b)[all.length >> 1] : null));
  show("Latency in seconds", ["slowest", "median"], [seconds, slowest, median]);

  const times = data.samples.map((one) => one.at);
  const names = {
    size: 80, splits: () => [0, 1, 2, 3, 4], values: (_, all) => all.map((one) => levels[one]),
  };
  const five = { range: [-0.2, 4.2] };
  const worst = by.map((all) => (
    all.length ? Math.max(...all.map((one) => levels.indexOf(one.level))) : null));
  show("Level of the answers: the worst of each second", ["level"], [seconds, worst], names, five);
  const level = [times, data.samples.map((one) => one.level)];
  show("Level of the app", ["level"], level, names, five);

  const breakers = Object.keys(data.samples[0]?.breakers ?? {});
  const states = ["closed", "half_open", "open"];
  const circuits = breakers.map((name) => data.samples.map((one) => (
    Math.max(0, states.indexOf(one.breakers[name].replace("forced_", ""))))));
  const words = { size: 80, splits: () => [0, 1, 2], values: (_, all) => all.map((one) => states[one]) };
  show("Circuits", breakers, [times, ...circuits], words, { range: [-0.2, 2.2] });

  show("Messages in queues", ["waiting"], [times, data.samples.map((one) => one.waiting)]);
})();
