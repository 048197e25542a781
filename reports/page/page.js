"use strict";
(() => {
  const root = document.documentElement;
  const plots = [];
  const narrow = window.matchMedia("(max-width: 640px), (pointer: coarse)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

  function themed(layout) {
    const axis = { gridcolor: colour("grid"), linecolor: colour("border"), zerolinecolor: colour("border") };
    const template = layout.template.layout;
    template.font.color = colour("text");
    template.xaxis = { ...template.xaxis, ...axis };
    template.yaxis = { ...template.yaxis, ...axis };
    template.hoverlabel = {
      ...template.hoverlabel,
      bgcolor: colour("card"),
      bordercolor: colour("border"),
      font: { ...template.hoverlabel.font, color: colour("text") },
    };
    template.dragmode = narrow.matches ? false : "zoom";
    return layout;
  }

  function withErrors(data) {
    for (const trace of data) if (trace.type === "bar" && trace.error_x) trace.error_x.color = colour("text");
    return data;
  }

  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: narrow.matches ? false : "hover",
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  };

  function draw() {
    for (const script of document.querySelectorAll("script.figure")) {
      const element = document.getElementById(script.dataset.for);
      const figure = JSON.parse(script.textContent);
      Plotly.newPlot(element, withErrors(figure.data), themed(figure.layout), config);
      plots.push(element);
    }
  }

  function redraw(width) {
    for (const element of plots) {
      const layout = themed(element.layout);
      const size = width ? { width: element.parentElement.clientWidth - 2, autosize: false } : { width: undefined, autosize: true };
      Plotly.react(element, withErrors(element.data), { ...layout, ...size }, config);
    }
  }

  function toggleTrace(button) {
    const element = button.closest("figure").querySelector(".plot");
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    const chosen = element.data.flatMap((trace, i) => (trace.name === button.dataset.trace ? [i] : []));
    Plotly.restyle(element, { visible: shown }, chosen);
  }

  const glyphs = {
    circle: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z", diamond: "M0-5L5 0L0 5L-5 0Z", square: "M-4-4H4V4H-4Z",
    "triangle-up": "M0-4.5L5 4H-5Z", cross: "M-1.5-5h3v3.5H5v3H1.5V5h-3V1.5H-5v-3h3.5Z",
    hexagon: "M-2.5-4.3h5L5 0L2.5 4.3h-5L-5 0Z", bar: "M-5-5H5V5H-5Z", line: "",
    star: "M0-5L1.5-1.5L5-1.5L2.2 1L3.2 5L0 2.6L-3.2 5L-2.2 1L-5-1.5L-1.5-1.5Z",
  };
  const dashes = { solid: "", dash: "5 3", dot: "2 3", dashdot: "6 3 2 3", longdash: "9 3", longdashdot: "9 3 2 3" };

  function glyph(button) {
    const [symbol, open] = button.dataset.symbol.split("-open");
    const path = glyphs[symbol] ?? glyphs.circle;
    const fill = open === undefined ? "currentColor" : "none";
    const dash = button.dataset.dash;
    const stroke = dash ? `<path d="M-12 0H12" stroke="currentColor" stroke-width="2" stroke-dasharray="${dashes[dash] ?? ""}"/>` : "";
    const half = dash ? 13 : 7;
    button.querySelector(".glyph").innerHTML =
      `<svg viewBox="${-half} -7 ${2 * half} 14" width="${2 * half}" height="14">${stroke}` +
      `<path d="${path}" fill="${fill}" stroke="currentColor"/></svg>`;
  }

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  }

  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    redraw();
  });
  dark.addEventListener("change", () => redraw());

  let before;
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    document.body.classList.add("printing");
    redraw(true);
  });
  window.addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme;
    else root.dataset.theme = before;
    document.body.classList.remove("printing");
    redraw();
  });

  for (const button of document.querySelectorAll(".legend button")) {
    glyph(button);
    button.addEventListener("click", () => toggleTrace(button));
  }
  draw();
})();
