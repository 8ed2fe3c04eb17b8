/** Other answers from one bundle: some of its emotions alone, or several of them as one. */
import { NO_SPEECH, NOT_SURE } from "./decision.js";
import { MifuseError } from "./errors.js";

/**
 * What a model's probabilities are shown as.
 *
 * @typedef {object} View
 * @property {string[]} labels
 * @property {number[][]} members of each label: the model's emotions, by their index, whose probabilities are summed
 */

/** All emotions as they are. @returns {View} */
export const whole = (labels) => ({ labels, members: labels.map((_, i) => [i]) });

/** Two or more emotions alone. @returns {View} */
export function subset(view, wanted) {
  check(view);
  for (const name of wanted) {
    if (!view.labels.includes(name)) {
      throw new MifuseError(`there is no emotion '${name}' here: they are ${view.labels.join(", ")}`);
    }
  }
  if (wanted.length < 2 || new Set(wanted).size < wanted.length) {
    throw new MifuseError(`a subset of ${wanted.join(", ") || "nothing"}: name two or more emotions, each once`);
  }
  const kept = view.labels.flatMap((label, i) => (wanted.includes(label) ? [i] : []));
  return { labels: kept.map((i) => view.labels[i]), members: kept.map((i) => view.members[i]) };
}

/** Several emotions as one, as in `{ negative: ["angry", "sad"] }`; those of no group stay. @returns {View} */
export function grouping(view, groups) {
  check(view);
  const place = new Map();
  for (const [name, members] of Object.entries(groups)) {
    for (const member of members) {
      if (!view.labels.includes(member)) {
        throw new MifuseError(`group ${name}: no emotion '${member}' here: they are ${view.labels.join(", ")}`);
      }
      const other = place.get(member) ?? name;
      if (other !== name) throw new MifuseError(`'${member}' is in the groups ${other} and ${name}: keep it in one`);
      place.set(member, name);
    }
    if (!name || /\p{C}/u.test(name) || [NO_SPEECH, NOT_SURE].includes(name) || !members.length) {
      throw new MifuseError(`group '${name}' of ${members.length} emotions: give it a name and members`);
    }
  }
  const taken = Object.keys(groups).find((name) => view.labels.includes(name) && place.get(name) !== name);
  if (taken) throw new MifuseError(`group '${taken}' has the name of an emotion outside of it: choose another`);
  const shown = view.labels.map((label) => place.get(label) ?? label);
  const labels = [...new Set(shown)];
  if (labels.length < 2) throw new MifuseError(`one group, '${labels[0]}', of all emotions: leave some out of it`);
  return { labels, members: labels.map((name) => view.members.filter((_, i) => shown[i] === name).flat()) };
}

function check(view) {
  if (!view.labels.length) throw new MifuseError("this model says dimensions alone: it has no emotions to choose from");
}

/** Groups as people write them: `negative=angry+sad`, one text each. @returns {Record<string, string[]>} */
export function parseGroups(texts) {
  const groups = new Map(); // of an object, `__proto__` would be no name
  for (const text of texts) {
    const [name, ...rest] = text.split("=");
    const members = rest.join("=").split("+").map((member) => member.trim()).filter(Boolean);
    if (!name.trim() || !members.length || groups.has(name.trim())) {
      throw new MifuseError(`group '${text}': write NAME=A+B, as in negative=angry+sad, each name once`);
    }
    groups.set(name.trim(), members);
  }
  return Object.fromEntries(groups);
}
