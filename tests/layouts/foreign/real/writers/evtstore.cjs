const { Pool } = require('pg');
const { createProvider, migrate } = require('evtstore/provider/pg');
const { tell } = require('./story.cjs');

const client = new Pool();
const tables = { client, events: 'events', bookmarks: 'bookmarks' };
const store = createProvider(tables);

const append = ({ category, id, events }, count) => {
  const own = events.map(({ type, data }) => ({ type, ...data }));
  return store.append(category, id, count + 1, store.createEvents(category, id, count + 1, own));
};

const recorded = ({ stream, aggregateId, version, position, timestamp, event }) => ({
  stream: `${stream}/${aggregateId}`, version, global: Number(position), at: timestamp, type: event.type, data: event,
  metadata: null,
});

migrate(tables).then(() => tell({
  append,
  stored: async () => (await store.getEventsFrom(['cart', 'order'], 0)).map(recorded),
  consumers: async () => {
    await store.setPosition('reader', 3);
    return { reader: Number(await store.getPosition('reader')) };
  },
  close: () => client.end(),
}));
