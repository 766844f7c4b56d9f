"use strict";
// A graph folded by module path. dagre computes the layout, d3 draws it.
const Graph = (() => {
  const FEW = 36; // boxes that are open at first
  const MANY = 60; // children of a module, before they are grouped into runs
  const RUN = 40;
  let drawn = 0;

  const short = (operator) => (/^(torch|_operator)\./.test(operator) ? operator.split(".").pop() : operator.split(".").length > 2 ? operator.split(".")[1] : operator);
  const clip = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);

  // The tree of modules. Chains of modules with one child are merged, and a module of one operator is that operator.
  function tree(nodes) {
    const root = { id: "", label: "", children: [], inside: new Map() };
    for (const node of nodes) {
      let at = root;
      for (const part of node.module ? node.module.split(".") : []) {
        if (!at.inside.has(part)) {
          const group = { id: at.id ? `${at.id}.${part}` : part, label: part, children: [], inside: new Map() };
          at.inside.set(part, group);
          at.children.push(group);
        }
        at = at.inside.get(part);
      }
      at.children.push({ id: `node ${node.name}`, node });
    }
    return tidy(root);
  }

  function tidy(group) {
    group.children = group.children.map((child) => (child.children ? tidy(child) : child));
    while (group.id && group.children.length === 1 && group.children[0].children) {
      const [only] = group.children;
      group = { ...only, label: `${group.label}.${only.label}` };
    }
    if (group.id && group.children.length === 1) return group.children[0];
    while (group.children.length > MANY) {
      const runs = [];
      for (let i = 0; i < group.children.length; i += RUN) {
        const children = group.children.slice(i, i + RUN);
        runs.push({ id: `${group.id}[${runs.length}:${children[0].id}]`, label: named(children), children });
      }
      group.children = runs;
    }
    return group;
  }

  const named = (children) => `${first(children[0])} … ${first(children[children.length - 1])}`;
  const first = (x) => (x.node ? x.node.name : x.label);
  const leaves = (x) => (x.node ? [x.node] : (x.leaves ??= x.children.flatMap(leaves)));

  function firstOpen(root) {
    const open = new Set([""]);
    let shown = root.children.length;
    for (const queue = [...root.children]; queue.length; ) {
      const group = queue.shift();
      if (!group.children || shown + group.children.length - 1 > FEW) continue;
      open.add(group.id);
      shown += group.children.length - 1;
      queue.push(...group.children);
    }
    return open;
  }

  // The visible boxes, the open groups around them, and the box of each node.
  function visible(root, open) {
    const boxes = [], clusters = [], holder = new Map();
    (function walk(group, parent) {
      for (const child of group.children) {
        if (child.children && open.has(child.id)) {
          clusters.push({ ...child, parent });
          walk(child, child.id);
        } else {
          boxes.push({ ...child, parent });
          for (const node of leaves(child)) holder.set(node.name, child.id);
        }
      }
    })(root, null);
    return { boxes, clusters, holder };
  }

  function lines(box, signs) {
    if (box.children) {
      const nodes = leaves(box);
      const kinds = d3.rollups(nodes, (v) => v.length, (n) => short(n.operator)).sort((a, b) => b[1] - a[1]);
      const told = clip(kinds.slice(0, 3).map(([name, count]) => (count > 1 ? `${count}×${name}` : name)).join(" "), 34);
      const differing = nodes.filter((n) => signs.has(n.name)).length;
      return [`▸ ${clip(box.label, 32)}`, `${nodes.length} operators: ${told}`, ...(differing ? [`${differing} differ`] : [])];
    }
    const { node } = box;
    if (node.kind !== "call") return [clip(node.kind === "constant" ? node.operator : node.name, 34)];
    const named = node.name.startsWith(short(node.operator)) ? [node.name] : [short(node.operator), node.name];
    const many = node.constants.length > 3;
    const read = node.constants.slice(0, many ? 2 : 3).map((name) => `▪ ${clip(name, 32)}`);
    return [...named.map((name) => clip(name, 34)), ...read, ...(many ? [`▪ ${node.constants.length - 2} more constants`] : [])];
  }

  const shapeParts = (node) => (node.shape ?? []).map(String);

  // Constants are listed in the boxes of their readers; as boxes of their own they would hide the computation.
  function computing(graph) {
    const constants = new Map(graph.nodes.filter((n) => n.kind === "constant").map((n) => [n.name, n.operator]));
    return graph.nodes.filter((n) => !constants.has(n.name)).map((n) => ({
      ...n,
      inputs: n.inputs.filter((name) => !constants.has(name)),
      constants: n.inputs.filter((name) => constants.has(name)).map((name) => constants.get(name)),
    }));
  }

  function draw(place, { title, graph, signs = new Map(), sign = "" }) {
    const number = drawn++;
    const nodes = computing(graph);
    const root = tree(nodes);
    let open = firstOpen(root), zoom = null;
    const frame = d3.select(place).append("div").attr("class", "graph").attr("role", "group").attr("aria-label", `Graph ${title}`);
    const bar = frame.append("div").attr("class", "bar");
    const told = `${nodes.length} nodes` + (graph.omitted ? `, ${graph.omitted} unchanged ones left out` : "");
    bar.append("b").text(title).append("span").attr("class", "muted").text(` ${told}`);
    if (nodes.length > FEW) {
      const find = bar.append("input").attr("type", "search").attr("placeholder", "Find node").attr("aria-label", `Find a node in ${title}`);
      find.on("keydown", (event) => event.key === "Enter" && search(find.property("value")));
      button("Fold all", () => { open = new Set([""]); render(); });
    }
    button("−", () => scale(1 / 1.25), "Smaller");
    button("+", () => scale(1.25), "Larger");
    const view = frame.append("div").attr("class", "view").attr("tabindex", 0).attr("role", "group").attr("aria-label", `${title}: boxes and arrows`);
    const about = frame.append("div").attr("class", "about").attr("hidden", "").attr("aria-live", "polite");
    queueMicrotask(render); // later, when the neighbouring graph exists and the width is known

    function button(text, act, label = text) {
      bar.append("button").attr("type", "button").attr("aria-label", label).text(text).on("click", act);
    }

    function scale(by) {
      zoom = Math.min(4, Math.max(0.2, zoom * by));
      view.select("svg").each(function () {
        d3.select(this).attr("width", this.viewBox.baseVal.width * zoom).attr("height", this.viewBox.baseVal.height * zoom);
      });
    }

    function search(text) {
      const wanted = text.trim().toLowerCase();
      const node = wanted && nodes.find((n) => `${n.name} ${n.operator} ${n.module ?? ""}`.toLowerCase().includes(wanted));
      if (!node) return;
      (function reach(group) {
        if (group.node) return group.node === node;
        if (!group.children.some(reach)) return false;
        open.add(group.id);
        return true;
      })(root);
      render(`node ${node.name}`);
      choose({ node });
    }

    function choose(box) {
      const { node } = box;
      about.attr("hidden", null).html("");
      const list = about.append("dl").attr("class", "evidence");
      const rows = { node: node.name, operator: node.operator, attributes: node.attributes, module: node.module, source: node.source };
      if (node.shape) rows.result = `${node.dtype ?? ""}[${shapeParts(node).join(", ")}]`;
      if (node.axes) rows["axis of the affine"] = node.axes.join(", ");
      rows.reads = [...node.inputs, ...node.constants].join(", ");
      for (const [name, value] of Object.entries(rows)) {
        if (!value) continue;
        list.append("dt").text(name);
        list.append("dd").append("code").text(value);
      }
    }

    function render(focus = null) {
      const { boxes, clusters, holder } = visible(root, open);
      const g = new dagre.graphlib.Graph({ compound: true });
      g.setGraph({ rankdir: "TB", nodesep: 16, ranksep: 26, marginx: 10, marginy: 14 });
      g.setDefaultEdgeLabel(() => ({}));
      for (const box of boxes) {
        box.lines = lines(box, signs);
        const dims = box.node?.kind === "call" && box.node.shape ? `[${shapeParts(box.node).join(", ")}]` : "";
        const width = (box.node && differs(box) ? 42 : 24) + 7.3 * Math.max(...box.lines.map((l) => l.length), dims.length);
        g.setNode(box.id, { width, height: 14 + 15 * (box.lines.length + (dims ? 1 : 0)) });
      }
      for (const cluster of clusters) g.setNode(cluster.id, {});
      for (const x of [...boxes, ...clusters]) if (x.parent) g.setParent(x.id, x.parent);
      for (const node of nodes) {
        for (const input of node.inputs) {
          const from = holder.get(input), to = holder.get(node.name);
          if (from !== undefined && from !== to) g.setEdge(from, to);
        }
      }
      dagre.layout(g);
      paint(g, boxes, clusters, focus);
    }

    function paint(g, boxes, clusters, focus) {
      const { width, height } = g.graph();
      const start = zoom === null;
      if (start) zoom = Math.min(1, Math.max(view.node().clientWidth < 500 ? 0.8 : 0.6, (view.node().clientWidth - 12) / width));
      view.html("");
      const svg = view.append("svg").attr("viewBox", `0 0 ${width} ${height}`).attr("width", width * zoom).attr("height", height * zoom)
        .attr("role", "group").attr("aria-label", `${boxes.length} boxes`);
      svg.append("marker").attr("id", `tip-${number}`).attr("viewBox", "0 0 8 8").attr("refX", 7).attr("refY", 4)
        .attr("markerWidth", 7).attr("markerHeight", 7).attr("orient", "auto").append("path").attr("d", "M0,0 8,4 0,8z");
      const around = svg.selectAll(".cluster").data(clusters).join("g").attr("class", "cluster");
      around.append("rect").attr("rx", 8).each(function ({ id }) {
        const { x, y, width, height } = g.node(id);
        d3.select(this).attr("x", x - width / 2).attr("y", y - height / 2).attr("width", width).attr("height", height);
      });
      const line = d3.line((p) => p.x, (p) => p.y).curve(d3.curveMonotoneY);
      svg.selectAll(".edge").data(g.edges()).join("path").attr("class", "edge").attr("marker-end", `url(#tip-${number})`)
        .attr("d", (e) => line(g.edge(e).points));
      const tab = around.append("g").attr("class", "tab").attr("tabindex", 0).attr("role", "button")
        .attr("aria-label", ({ id }) => `Fold ${id}`)
        .attr("transform", ({ id }) => { const c = g.node(id); return `translate(${c.x - c.width / 2 + 8},${c.y - c.height / 2 - 9})`; });
      tab.append("rect").attr("rx", 4).attr("height", 18).attr("width", ({ label }) => 14 + 6.8 * (label.length + 2));
      tab.append("text").attr("x", 7).attr("y", 13).text(({ label }) => `▾ ${label}`);
      act(tab, ({ id }) => { open.delete(id); render(id); });
      const box = svg.selectAll(".box").data(boxes).join("g").attr("tabindex", 0).attr("role", "button").attr("data-id", ({ id }) => id)
        .attr("class", (b) => `box ${b.node ? b.node.kind : "group"} ${differs(b) ? "differs" : ""}`)
        .attr("transform", ({ id }) => { const c = g.node(id); return `translate(${c.x - c.width / 2},${c.y - c.height / 2})`; });
      box.append("rect").attr("rx", (b) => (b.node && b.node.kind !== "call" ? 13 : 6)).attr("width", ({ id }) => g.node(id).width).attr("height", ({ id }) => g.node(id).height);
      box.append("title").text((b) => (b.node ? [b.node.name, b.node.operator, b.node.source].filter(Boolean).join("\n") : b.id));
      box.each(function (b) {
        const me = d3.select(this);
        b.lines.forEach((text, i) => me.append("text").attr("class", i ? "small" : null).attr("x", 12).attr("y", 19 + 15 * i).text(text));
        if (b.node?.kind === "call" && b.node.shape) dimensions(me, b.node, 19 + 15 * b.lines.length);
        if (b.node && differs(b)) me.append("text").attr("class", "sign").attr("x", g.node(b.id).width - 15).attr("y", 18).text(sign);
        if (differs(b)) me.append("desc").text("differs"); // its name is its text
        me.attr("aria-expanded", b.children ? "false" : null);
      });
      act(box, (b, element) => {
        if (b.children) { open.add(b.id); return render(leaves(b).length ? b.children[0].id : null); }
        svg.selectAll(".chosen").classed("chosen", false);
        d3.select(element).classed("chosen", true);
        choose(b);
      });
      if (start) view.node().scrollLeft = (width * zoom - view.node().clientWidth) / 2;
      if (focus !== null) {
        const target = svg.selectAll(".box").filter((b) => b.id === focus);
        if (!target.empty()) { target.classed("chosen", true).node().focus({ preventScroll: true }); reveal(target.node()); }
      }
    }

    function differs(b) {
      return b.node ? signs.has(b.node.name) : leaves(b).some((n) => signs.has(n.name));
    }

    function dimensions(place, node, y) {
      const text = place.append("text").attr("class", "small").attr("x", 12).attr("y", y);
      text.append("tspan").text("[");
      shapeParts(node).forEach((size, i) => {
        text.append("tspan").text(i ? ", " : "");
        text.append("tspan").attr("class", (node.axes ?? []).includes(i) ? "axis" : null).text(size);
      });
      text.append("tspan").text("]");
    }

    function reveal(element) {
      const outer = view.node().getBoundingClientRect(), inner = element.getBoundingClientRect();
      view.node().scrollLeft += inner.left - outer.left - outer.width / 2 + inner.width / 2;
      view.node().scrollTop += inner.top - outer.top - outer.height / 2 + inner.height / 2;
    }
  }

  function act(selection, what) {
    selection.on("click", (event, datum) => what(datum, event.currentTarget));
    selection.on("keydown", (event, datum) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); what(datum, event.currentTarget); }
    });
  }

  // Names of the nodes of one graph without a counterpart in the other: those marked in the result, or, for a rewritten
  // program (named), those with another name, operator, constants or operands. An operand that is missing in the other
  // graph is replaced by its own first operand.
  function differing(one, other, named) {
    if (!one || !other) return new Map();
    if (!named) return new Map(one.nodes.filter((n) => n.differs).map((n) => [n.name, true]));
    const keys = (nodes, theirs) => {
      const known = new Set(theirs.map((n) => n.name)), mine = new Map(nodes.map((n) => [n.name, n]));
      const lasting = (name) => {
        for (let steps = 0; !known.has(name) && mine.get(name)?.inputs.length && steps < 100; steps++) name = mine.get(name).inputs[0];
        return name;
      };
      return nodes.map((n) => [n.name, JSON.stringify([n.name, n.operator, n.attributes, n.constants, n.inputs.map(lasting)])]);
    };
    const [a, b] = [computing(one), computing(other)];
    const theirs = new Set(keys(b, a).map(([, key]) => key));
    return new Map(keys(a, b).filter(([name, key]) => name !== "output" && !theirs.has(key)).map(([name]) => [name, true]));
  }

  return { draw, differing };
})();
