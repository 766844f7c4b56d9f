"use strict";
// Behaviour of the page: colours, search, folding, choice of a pass. Graphs and plots are drawn when they come into view.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (path) => path.split("/").filter(Boolean).reduce((x, name) => x?.[name], data);

  // Colours: those of the system, or the chosen ones.
  const theme = document.getElementById("theme"), themes = { auto: "◐", light: "☀", dark: "☾" };
  const remembered = () => { try { return localStorage.getItem("foldproof-theme"); } catch { return null; } };
  function paint(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.firstChild.textContent = `${themes[name]} `;
    theme.querySelector("span").textContent = name;
    theme.setAttribute("aria-label", `Colours: ${name}`);
    try { localStorage.setItem("foldproof-theme", name); } catch { /* a file without storage */ }
  }
  let chosen = themes[remembered()] ? remembered() : "auto";
  paint(chosen);
  theme.addEventListener("click", () => {
    const names = Object.keys(themes);
    paint((chosen = names[(names.indexOf(chosen) + 1) % names.length]));
  });

  for (const input of document.querySelectorAll("[data-filter]")) {
    const rows = [...document.getElementById(input.dataset.filter).querySelectorAll("[data-text]")];
    const texts = rows.map((row) => row.dataset.text.toLowerCase());
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        const hit = words.every((word) => texts[i].includes(word));
        row.toggleAttribute("data-hidden", !hit);
        shown += hit;
      });
      input.closest("label").querySelector("output").textContent = words.length ? `${shown} of ${rows.length}` : "";
    });
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const pre = button.parentElement.querySelector("pre");
      try {
        await navigator.clipboard.writeText(pre.textContent);
      } catch { // pages opened from a file may have no access to the clipboard
        getSelection().selectAllChildren(pre);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }

  function drawGraphs(place) {
    const found = at(place.dataset.graphs);
    if (!found) return;
    if (found.nodes) { // a single graph: a comparison's reference
      const signs = new Map((data.sources ?? []).map((s) => [s.node, true]));
      Graph.draw(place, { title: "reference", graph: found, signs, sign: "≠" });
      return;
    }
    for (const [side, other, sign] of [["before", "after", "−"], ["after", "before", "+"]]) {
      if (found[side]) Graph.draw(place, { title: place.dataset[side], graph: found[side], signs: Graph.differing(found[side], found[other], ["fuse", "fold-qat"].includes(data.command)), sign });
    }
  }

  function drawPlots(place) {
    const found = at(place.dataset.plots);
    const any = data.command === "fuse" ? Plots.accuracies(place, found.rewrites) : Plots.comparison(place, found);
    if (!any) place.closest("[data-needs-plots]")?.setAttribute("hidden", "");
  }

  // Draw once, when visible: the contents of a closed row become visible when it is opened.
  const undrawn = new Set(document.querySelectorAll("[data-graphs], [data-plots]"));
  const draw = (place) => {
    if (!undrawn.delete(place)) return;
    watcher.unobserve(place);
    (place.dataset.graphs !== undefined ? drawGraphs : drawPlots)(place);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) draw(target);
  }, { rootMargin: "400px" });
  for (const place of undrawn) watcher.observe(place);

  // Paper shows everything: closed rows, passes that are not chosen, and what nobody has scrolled to.
  let unfolded = [];
  addEventListener("beforeprint", () => {
    const closed = [...document.querySelectorAll("details:not([open])")], hidden = [...document.querySelectorAll(".panel[hidden]")];
    for (const one of closed) one.open = true;
    for (const one of hidden) one.hidden = false;
    for (const place of [...undrawn]) draw(place);
    unfolded = [...closed.map((one) => () => (one.open = false)), ...hidden.map((one) => () => (one.hidden = true))];
  });
  addEventListener("afterprint", () => unfolded.splice(0).forEach((fold) => fold()));

  const timeline = document.getElementById("timeline");
  if (timeline) {
    const steps = [...timeline.children];
    const choose = (step, focus = true) => {
      for (const one of steps) {
        const now = one === step;
        one.setAttribute("aria-selected", now);
        one.tabIndex = now ? 0 : -1;
        document.getElementById(one.getAttribute("aria-controls")).hidden = !now;
      }
      if (focus) step.focus();
    };
    const seen = () => steps.filter((step) => step.offsetParent !== null);
    timeline.addEventListener("click", (event) => { const step = event.target.closest(".step"); if (step) choose(step); });
    timeline.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const list = seen(), place = list.indexOf(document.activeElement);
      if (!by || place < 0) return;
      event.preventDefault();
      choose(list[(place + by + list.length) % list.length]);
    });
    const idle = document.getElementById("idle");
    idle.addEventListener("change", () => timeline.classList.toggle("show-idle", idle.checked));
    const wrong = steps.find((step) => step.matches(".REFUTED")) ?? steps.find((step) => step.matches(".UNDECIDED:not(.idle)")) ?? steps.find((step) => !step.matches(".idle"));
    if (wrong) choose(wrong, false);
  }
})();
