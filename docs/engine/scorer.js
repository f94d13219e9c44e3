// Sphinx scores a page by its best word: many are alike then. Pages come first whose titles have
// more of what was asked for, and prose before the names of functions.
var asked = (new URLSearchParams(location.search).get("q") || "").toLowerCase().match(/[\p{L}\p{N}]{2,}/gu) || [];
var Scorer = {
  score: ([docname, title, anchor, descr, score, filename, kind]) => {
    const words = (title || "").toLowerCase();
    const found = asked.filter((word) => words.includes(word)).length;
    return score + (asked.length ? (30 * found) / asked.length : 0) - (docname === "changelog" ? 10 : 0);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
