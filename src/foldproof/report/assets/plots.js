"use strict";
// Error plots, drawn by Observable Plot. Sides differ in colour and in form: circles and triangles.
const Plots = (() => {
  const REFERENCE = "var(--one)", CANDIDATE = "var(--two)";
  const number = (x) => (typeof x === "number" && x > 0 ? x : null);
  const plain = (x) => (x === null ? "none" : x.toPrecision(3));
  const width = (place) => Math.max(300, Math.min(640, place.clientWidth || 560));

  function figure(place, title, note, options, legend = "") {
    const made = document.createElement("figure");
    const caption = made.appendChild(document.createElement("figcaption"));
    caption.textContent = title;
    caption.appendChild(document.createElement("small")).textContent = note;
    place.append(made);
    if (legend) {
      const key = made.appendChild(document.createElement("div"));
      key.className = "legend";
      key.innerHTML = legend; // trusted text, never from the document
    }
    const drawn = Plot.plot({ width: width(made), height: 290, marginLeft: 62, marginBottom: 46, inset: 8, ariaLabel: `${title}. ${note}`, style: { background: "none", fontSize: "12px" }, ...options });
    // One picture with one name: Plot names each group of marks, where names are not allowed.
    drawn.setAttribute("role", "img");
    for (const part of drawn.querySelectorAll("[aria-label], [aria-description]")) for (const name of ["aria-label", "aria-description"]) part.removeAttribute(name);
    made.append(drawn);
  }

  const mark = (shape) => `<svg viewBox="-8 -8 16 16" aria-hidden="true">${shape}</svg>`;
  const CIRCLE = mark(`<circle r="4.5" fill="none" stroke-width="2" stroke="${REFERENCE}"/>`);
  const TRIANGLE = mark(`<path d="M0,-6 6,5 -6,5z" fill="none" stroke-width="2" stroke="${CANDIDATE}"/>`);
  const LINE = mark(`<path d="M-8,0H8" stroke="currentColor" stroke-width="2" stroke-dasharray="4 3"/>`);
  // As many digits as it takes for no two ticks of an axis to have one text; zeros at the end are left out.
  function digits(values) {
    const [least, most] = d3.extent(values.filter((x) => x > 0));
    return most > least ? Math.max(1, Math.min(9, Math.ceil(-Math.log10((most / least - 1) / 6)) + 2)) : 3;
  }
  const log = (label, values, write = (d, n) => d3.format(`.${n - 1}~e`)(d)) => {
    const n = digits(values);
    return { type: "log", label, tickFormat: (d) => write(d, n), grid: true, ticks: 5 };
  };
  const times = (d, n) => `×${d3.format("~r")(+d.toPrecision(n))}`;
  const dots = (data, x, y, side, title) =>
    Plot.dot(data.filter((d) => number(d[y]) !== null), { x, y, r: 3.5, strokeWidth: 1.6, title, tip: true, stroke: side === "reference" ? REFERENCE : CANDIDATE, symbol: side === "reference" ? "circle" : "triangle" });

  function layers(place, all) {
    const data = all.map((d, i) => ({ ...d, index: i + 1, above: number(d.floor), reference: number(d.reference), candidate: number(d.candidate) }));
    const title = (d) => `${d.node} (${d.operator})\nreference ${plain(d.reference)}, candidate ${d.candidate === null ? "not seen" : plain(d.candidate)}\nnoise floor ${plain(d.above)}`;
    if (!data.some((d) => d.reference || d.candidate)) return;
    figure(place, "Distance to the float64 result along the depth", "of each operator's value, with its spread by rounding alone; root mean squares", {
      x: { label: "operator, in order", nice: true, tickFormat: (d) => (Number.isInteger(d) ? String(d) : "") },
      y: log("distance to the float64 result", data.flatMap((d) => [d.above, d.reference, d.candidate])),
      marks: [
        Plot.line(data.filter((d) => d.above), { x: "index", y: "above", stroke: "currentColor", strokeDasharray: "4 3", strokeOpacity: 0.7 }),
        dots(data, "index", "reference", "reference", title),
        dots(data, "index", "candidate", "candidate", title),
      ],
    }, `<span>${CIRCLE} reference</span><span>${TRIANGLE} candidate, where it shows the value</span><span>${LINE} noise floor</span>`);
  }

  function outputs(place, all) {
    const data = all.map((d) => ({ ...d, name: d.name || `output ${d.output}`, reference: number(d.reference), candidate: number(d.candidate), floor: number(d.floor) }));
    if (!data.some((d) => d.reference || d.candidate)) return;
    const title = (d) => `${d.name} [${d.shape.join(", ")}]\nreference ${plain(d.reference)}, candidate ${plain(d.candidate)}\nnoise floor ${plain(d.floor)}`;
    const side = (name) => Plot.dot(data.filter((d) => d[name] !== null), { x: name, y: "name", r: 5, strokeWidth: 2, title, tip: true, stroke: name === "reference" ? REFERENCE : CANDIDATE, symbol: name === "reference" ? "circle" : "triangle" });
    figure(place, "Distance to the float64 result of each value", "at the given inputs; the bar is the spread by rounding alone", {
      height: 100 + 26 * Math.min(data.length, 60), marginLeft: 24 + 7 * Math.max(...data.map((d) => d.name.length)), x: log("distance to the float64 result (root mean square)", data.flatMap((d) => [d.reference, d.candidate, d.floor])), y: { label: null },
      marks: [Plot.ruleY(data.filter((d) => d.floor && (d.reference || d.candidate)), { y: "name", x1: (d) => Math.min(d.floor, d.reference ?? d.floor, d.candidate ?? d.floor) / 2, x2: "floor", stroke: "currentColor", strokeOpacity: 0.25, strokeWidth: 10 }), side("reference"), side("candidate")],
    }, `<span>${CIRCLE} reference</span><span>${TRIANGLE} candidate</span>`);
  }

  function ratios(place, values, title, note, label) {
    const data = values.filter((r) => Number.isFinite(r) && r > 0).map((r) => ({ log: Math.log2(r) }));
    if (data.length < 2) return;
    const reach = 1.05 * Math.max(0.5, ...data.map((d) => Math.abs(d.log)));
    const edges = d3.range(-10, 11).map((i) => (i * reach) / 10);
    figure(place, title, note, {
      x: { label, domain: [-reach, reach], tickFormat: (d) => times(2 ** d, 2), ticks: 5 },
      inset: 0, y: { label: "how many", grid: true, tickFormat: (d) => (Number.isInteger(d) ? String(d) : "") },
      marks: [Plot.rectY(data, Plot.binX({ y: "count" }, { x: "log", thresholds: edges, fill: REFERENCE, insetLeft: 1 })), Plot.ruleX([0], { strokeDasharray: "4 3" }), Plot.ruleY([0])],
    });
  }

  function amplification(place, sources, all) {
    const order = new Map(all.map((d, i) => [d.node, i + 1]));
    const data = sources.filter((d) => number(d.amplification) && order.has(d.node)).map((d) => ({ ...d, index: order.get(d.node) }));
    if (data.length < 2) return;
    figure(place, "Amplification along the depth", "of an error at each operator by later layers, in the outputs", {
      x: { label: "operator, in order", domain: [0.5, all.length + 0.5], tickFormat: (d) => (Number.isInteger(d) ? String(d) : "") },
      y: log("amplified by", data.map((d) => d.amplification), times),
      marks: [Plot.ruleY([1], { strokeDasharray: "4 3" }), Plot.ruleX(data, { x: "index", y1: 1, y2: "amplification", stroke: CANDIDATE }),
        Plot.dot(data, { x: "index", y: "amplification", r: 4, fill: CANDIDATE, tip: true, title: (d) => `${d.node} (${d.operator})\nerror there ${d.error}\namplified ×${plain(d.amplification)}${d.share > 0 ? `\nshare ${Math.round(100 * d.share)} %` : ""}` })],
    });
  }

  function accuracies(place, rewrites) {
    const data = rewrites.filter((r) => r.accuracy).map((r, i) => ({ index: i + 1, name: r.reported, result: r.result, before: number(r.accuracy.before), after: number(r.accuracy.after), epsilon: r.accuracy.epsilon }));
    if (!data.some((d) => d.before || d.after)) return false;
    const title = (d) => `${d.name} into ${d.result}\nbefore ${plain(d.before)}\nafter ${plain(d.after)}`;
    figure(place, "Distance to the float64 result, before and after", "of each rewritten region's result", {
      x: { label: "rewrite, in order", tickFormat: (d) => (Number.isInteger(d) ? String(d) : "") }, y: log("distance to the float64 result, in parts of its size", data.flatMap((d) => [d.before, d.after])),
      marks: [Plot.ruleY([data[0].epsilon], { strokeDasharray: "4 3", strokeOpacity: 0.7 }), Plot.ruleX(data.filter((d) => d.before && d.after), { x: "index", y1: "before", y2: "after", strokeOpacity: 0.25 }),
        dots(data, "index", "before", "reference", title), dots(data, "index", "after", "candidate", title)],
    }, `<span>${CIRCLE} before</span><span>${TRIANGLE} after</span><span>${LINE} one unit in the last place</span>`);
    ratios(place, data.filter((d) => d.before && d.after).map((d) => d.after / d.before), "Change of the distance by folding", "of all rewrites; right of the dashed line, the distance grew", "after / before");
    return true;
  }

  function comparison(place, data) {
    layers(place, data.layers ?? []);
    outputs(place, data.outputs ?? []);
    ratios(place, (data.distances ?? []).map((d) => d.candidate / d.reference), "Which side is nearer, input by input", "left of the dashed line the candidate is nearer to the float64 result", "candidate / reference");
    amplification(place, data.sources ?? [], data.layers ?? []);
    return place.childElementCount > 0;
  }

  return { comparison, accuracies };
})();
