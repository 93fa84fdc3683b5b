// Draws every panel from the page's own data with the colours of the page's own style, light or dark.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || name;

  const faded = (name, alpha) => {
    const hex = colour(name).replace("#", "");
    const [r, g, b] = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  };

  const hidden = () =>
    new Set([...document.querySelectorAll(".toggles input:not(:checked)")].map((box) => box.value));

  const traces = (panel, off) =>
    panel.traces.map((trace) => {
      const shown = { ...trace, showlegend: false, visible: !off.has(trace.meta.model) };
      if (trace.type === "heatmap") {
        const bar = { thickness: 12, outlinewidth: 0, tickcolor: colour("soft") };
        return { ...shown, colorbar: { ...trace.colorbar, ...bar } };
      }
      shown.line = { ...trace.line, color: colour(trace.line.color) };
      if (trace.marker) shown.marker = { ...trace.marker, color: colour(trace.marker.color) };
      if (trace.marker && trace.marker.symbol.includes("thin")) {
        shown.marker.line = { width: 2, color: shown.marker.color };
      }
      if (trace.fillcolor) shown.fillcolor = faded(trace.fillcolor, 0.16);
      return shown;
    });

  const axis = (given) => ({
    ...given, gridcolor: colour("line"), zeroline: false, linecolor: colour("soft"), tickcolor: colour("soft"),
    ticks: "outside", fixedrange: true, title: { ...given.title, font: { size: 13 } },
  });

  const layout = (node, panel, off) => {
    const labels = panel.layout.annotations
      .filter((label) => !off.has(label.model))
      .map(({ model, ...label }) => ({ ...label, font: { ...label.font, color: colour(label.font.color) } }));
    const longest = Math.max(...panel.layout.annotations.map((label) => label.text.length), 4);
    return {
      width: node.clientWidth, height: node.clientHeight, hovermode: "closest", annotations: labels,
      margin: { t: 14, l: 70, b: 54, r: Math.min(24 + 7.6 * longest, 170) },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("text"), size: 13, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: { bgcolor: colour("card"), font: { color: colour("text") }, bordercolor: colour("line") },
      xaxis: { ...axis(panel.layout.xaxis), showgrid: false },
      yaxis: axis(panel.layout.yaxis),
    };
  };

  const config = { displaylogo: false, displayModeBar: false };

  const draw = () => {
    const off = hidden();
    for (const [node, panel] of plots) Plotly.react(node, traces(panel, off), layout(node, panel, off), config);
  };

  for (const node of document.querySelectorAll(".plot")) {
    plots.push([node, figures[node.dataset.figure][Number(node.dataset.panel)]]);
  }
  draw();
  for (const box of document.querySelectorAll(".toggles input")) box.addEventListener("change", draw);
  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (document.body.clientWidth !== width) draw();
    width = document.body.clientWidth;
  }).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("themechange", draw);
  document.documentElement.dataset.drawn = String(plots.length);
})();
