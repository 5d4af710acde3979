// Tells the story to the store of a tool, and prints what the tool itself then reads, as JSON.
const story = require('./story.json');

exports.streams = (separator) => [...new Set(story.map((step) => step.category + separator + step.id))];

// `append(step, events)` appends to a stream that has so many events. `stored()` returns what the tool reads, and
// `consumers()` how far its consumers are by name.
exports.tell = async ({ append, stored, consumers, close }) => {
  const events = {};
  let refused = 0;
  for (const step of story) {
    const before = events[step.id] ?? 0;
    if (step.stale) {
      refused += await append(step, before - 1).then(() => 0, () => 1);
    } else {
      await append(step, before);
      events[step.id] = before + step.events.length;
    }
  }
  const numbers = (_, value) => (typeof value === 'bigint' ? Number(value) : value);
  const said = { refused, events: await stored(), consumers: await consumers?.() };
  process.stdout.write(JSON.stringify(said, numbers) + '\n');
  await close();
};
