{
  const data = JSON.parse(document.getElementById("multiverse-data").textContent);
  const menu = document.getElementById("explorer-claim");
  const drawing = document.getElementById("explorer-curve");
  const said = document.getElementById("explorer-said");
  const weights = document.getElementById("explorer-weights");
  const LEFT = 190, WIDTH = 860, CURVE = 230, ROW = 15, TOP = 12;
  const SHAPES = { for: "M-4,3 4,3 0,-4z", within: "M-3,-3 3,-3 3,3 -3,3z", against: "M-4,-3 4,-3 0,4z" };
  let brushed = null; // [fork, level], both as numbers

  function element(name, attributes = {}, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  }

  // A group's halves and levels by the weight that the reader gives them, relative to ours.
  function weight(universe, forks) {
    return forks.reduce((product, fork, index) => {
      const inputs = [...weights.querySelectorAll(`input[data-fork="${index}"]`)].map((i) => Math.max(0, +i.value || 0));
      const total = inputs.reduce((sum, value) => sum + value, 0);
      const level = universe.levels[index];
      return total ? product * (inputs[level] / total / fork.weights[level]) : product;
    }, 1);
  }

  function sentence(shown) {
    const total = (word) => shown.filter((u) => !word || u.word === word).reduce((sum, u) => sum + u.weight, 0);
    const all = total("");
    if (!all) return "No reading decides the claim under these weights.";
    const share = (word) => `${Math.round((100 * total(word)) / all)} %`;
    const effective = all ** 2 / shown.reduce((sum, u) => sum + u.weight ** 2, 0);
    return `The claim holds in ${share("for")} of ${shown.length} readings, the opposite in ${share("against")}; ` +
      `${share("within")} are within the smallest effect of interest. Under these weights they count as much as ` +
      `${effective.toFixed(0)} readings of equal weight.`;
  }

  function fits(universe) {
    return !brushed || universe.levels[brushed[0]] === brushed[1];
  }

  function show() {
    const claim = data.claims[menu.value];
    const forks = data.forks[claim.experiment];
    const outcomes = data.outcomes[claim.id];
    const judged = data.universes[claim.experiment]
      .filter((u) => u.n in outcomes)
      .map((u) => ({ ...u, effect: outcomes[u.n][0], word: outcomes[u.n][1], weight: weight(u, forks) }))
      .sort((a, b) => a.effect - b.effect);
    said.textContent = sentence(judged.filter(fits)) + (brushed ? ` Shown: only ${forks[brushed[0]].name} = ${forks[brushed[0]].levels[brushed[1]]}.` : "");
    drawing.replaceChildren(...curve(claim, forks, judged));
    const rows = forks.reduce((n, fork) => n + fork.levels.length, 0);
    drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${TOP + CURVE + ROW * rows + 24}`);
  }

  function* curve(claim, forks, judged) {
    const edges = [0, ...claim.marks.map((m) => m.effect), ...judged.map((u) => u.effect), claim.margin, -claim.margin];
    const low = Math.min(...edges), high = Math.max(...edges), span = high - low || 1;
    const x = (i) => LEFT + ((i + 0.5) * (WIDTH - LEFT)) / judged.length;
    const y = (value) => TOP + CURVE * (1 - (value - low) / span);
    const line = (value, dash, label) => {
      const group = element("g");
      group.append(element("line", { x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value), stroke: "currentColor", "stroke-width": 0.8, "stroke-dasharray": dash }));
      group.append(element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end", class: "label" }, label));
      return group;
    };
    yield line(0, "", "no effect");
    yield line(claim.margin, "2 3", "smallest effect of interest");
    yield line(-claim.margin, "2 3", "");
    for (const mark of claim.marks) yield line(mark.effect, "7 3", mark.name);
    for (const [i, universe] of judged.entries()) {
      const point = element("path", { d: SHAPES[universe.word], transform: `translate(${x(i)},${y(universe.effect)})`, class: `point ${universe.word}`, opacity: fits(universe) ? 1 : 0.15 });
      point.append(element("title", {}, `${universe.shown[claim.id]}: lft universe show ${claim.experiment} ${universe.n}`));
      yield point;
    }
    let row = TOP + CURVE + 20;
    for (const [f, fork] of forks.entries()) {
      for (const [l, level] of fork.levels.entries()) {
        const chosen = brushed && brushed[0] === f && brushed[1] === l;
        const button = element("g", { tabindex: 0, role: "button", "aria-pressed": Boolean(chosen), class: "level" });
        button.append(element("text", { x: LEFT - 6, y: row + 4, "text-anchor": "end", class: "label", "font-weight": chosen ? 700 : 400 }, `${fork.name}: ${level}`));
        const toggle = () => { brushed = chosen ? null : [f, l]; show(); };
        button.addEventListener("click", toggle);
        button.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); } });
        yield button;
        for (const [i, universe] of judged.entries())
          if (universe.levels[f] === l)
            yield element("line", { x1: x(i), x2: x(i), y1: row - 4, y2: row + 4, class: "tick", opacity: fits(universe) ? 1 : 0.15 });
        row += ROW;
      }
    }
  }

  function reset() {
    const forks = data.forks[data.claims[menu.value].experiment];
    brushed = null;
    weights.replaceChildren(...forks.map((fork, f) => {
      const set = document.createElement("fieldset");
      const legend = document.createElement("legend");
      legend.textContent = fork.name;
      set.append(legend, ...fork.levels.map((level, l) => {
        const label = document.createElement("label");
        const input = document.createElement("input");
        Object.assign(input, { type: "number", min: 0, step: "any", value: +fork.weights[l].toPrecision(2) });
        input.dataset.fork = f;
        label.append(input, level);
        return label;
      }));
      return set;
    }));
    show();
  }

  document.getElementById("explorer").hidden = false;
  for (const [index, claim] of data.claims.entries()) menu.add(new Option(claim.text, index));
  const wanted = data.claims.findIndex((claim) => `#${claim.id}` === decodeURIComponent(location.hash));
  menu.value = Math.max(0, wanted);
  menu.addEventListener("change", reset);
  weights.addEventListener("input", show);
  document.getElementById("explorer-reset").addEventListener("click", reset);
  reset();
}
