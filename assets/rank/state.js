// What a person has chosen for one task, as plain values: `act(state, action)` gives the next state.
//
// Knows no page and no server. Nothing is placed at the start, and nothing is placed but by an action of the person.

/** The state of a task that nobody has touched. */
export function fresh(count) {
  return {
    count,
    focus: 0,
    ranks: Array(count).fill(null),
    rest: false, // "I cannot tell the rest" was said
    ratings: Array.from({ length: count }, () => ({})),
    flags: Array.from({ length: count }, () => []),
    comment: "",
    past: [],
  };
}

const REMEMBERED = 200;
/** What undo passes over. */
const UNRECORDED = ["focus", "comment", "undo"];

/** The next state. Unknown actions, and those that change nothing, give the same state. */
export function act(state, action) {
  const next = change(state, action);
  if (next === state || UNRECORDED.includes(action.type)) return next;
  const { past, ...before } = state;
  return { ...next, past: [...past.slice(-REMEMBERED), before] };
}

function change(state, action) {
  switch (action.type) {
    case "focus": return { ...state, focus: clamp(action.place, state.count) };
    case "rank": return ranked(state, action.place, action.rank);
    case "put": return state.ranks[action.place] === action.rank ? state : placed(state, action.place, action.rank);
    case "insert": return inserted(state, action.place, action.rank);
    case "clear": return state.ranks[action.place] === null ? state : placed(state, action.place, null);
    case "rest": return state.rest === action.value ? state : { ...state, rest: action.value };
    case "rate": return rated(state, action);
    case "flag": return flagged(state, action.place, action.flag);
    case "comment": return state.comment === action.text ? state : { ...state, comment: action.text };
    case "undo": return undone(state);
    default: return state;
  }
}

const clamp = (place, count) => Math.max(0, Math.min(count - 1, place));

/** The same rank again takes it away. */
function ranked(state, place, rank) {
  if (rank < 1 || rank > state.count) return state;
  return placed(state, place, state.ranks[place] === rank ? null : rank);
}

function placed(state, place, rank) {
  const ranks = state.ranks.with(place, rank);
  return { ...state, ranks, focus: place, rest: state.rest && ranks.includes(null) };
}

/** Puts a response between those of `rank - 1` and of `rank`, which move down with all behind them. */
function inserted(state, place, rank) {
  const others = state.ranks.map((r, i) => (i === place ? null : r));
  const pushed = others.map((r) => (r !== null && r >= rank ? r + 1 : r)).with(place, rank);
  return { ...placed(state, place, rank), ranks: Math.max(...pushed) > state.count ? dense(pushed) : pushed };
}

function rated(state, { place, attribute, rating }) {
  const { [attribute]: before, ...others } = state.ratings[place];
  const ratings = before === rating ? others : { ...others, [attribute]: rating };
  return { ...state, ratings: state.ratings.with(place, ratings) };
}

function flagged(state, place, flag) {
  const before = state.flags[place];
  const flags = before.includes(flag) ? before.filter((other) => other !== flag) : [...before, flag];
  return { ...state, flags: state.flags.with(place, flags) };
}

function undone(state) {
  const before = state.past.at(-1);
  return before ? { ...before, comment: state.comment, past: state.past.slice(0, -1) } : state;
}

/** Ranks without gaps: 1, 3, 3 become 1, 2, 2. */
export function dense(ranks) {
  const used = [...new Set(ranks.filter((rank) => rank !== null))].sort((a, b) => a - b);
  return ranks.map((rank) => (rank === null ? null : used.indexOf(rank) + 1));
}

/** The next response without a place after `place`, in a circle; null if there is none. */
export function nextOpen(state, place) {
  for (let step = 1; step < state.count; step += 1) {
    const other = (place + step) % state.count;
    if (state.ranks[other] === null) return other;
  }
  return null;
}

/** The places on the page that have no rank. */
export const open = (state) => state.ranks.flatMap((rank, place) => (rank === null ? [place] : []));

/** Whether anything was chosen. */
export const isTouched = (state) => state.past.length > 0;

/** Why this cannot be submitted yet; null if it can. */
export function obstacle(state) {
  const left = open(state).length;
  if (left === state.count) return "Nothing is ranked yet.";
  if (left > 0 && !state.rest) return left === 1 ? "One response is not ranked." : `${left} responses are not ranked.`;
  return null;
}
