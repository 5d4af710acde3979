const { PostgresEventStorageAdapter } = require('@castore/event-storage-adapter-postgres');
const { tell } = require('./story.cjs');

const connectionString = 'postgresql://'; // the environment says where
const store = new PostgresEventStorageAdapter({ connectionString });
const written = [];

const append = async ({ category, id, events }, count) => {
  for (const [n, { type, data, metadata }] of events.entries()) {
    const version = count + n + 1;
    const { event } = await store.pushEvent(
      { aggregateId: id, version, type, payload: data, metadata }, { eventStoreId: category });
    written.push({ category, event });
  }
};

const read = async ({ category, event }) => {
  const { events: [found] } = await store.getEvents(
    event.aggregateId, { eventStoreId: category }, { minVersion: event.version, maxVersion: event.version });
  return {
    stream: `${category}/${found.aggregateId}`, version: found.version, type: found.type, data: found.payload,
    metadata: found.metadata, at: found.timestamp,
  };
};

PostgresEventStorageAdapter.createEventTable({ connectionString }).then(() => tell({
  append,
  stored: () => Promise.all(written.map(read)),
  close: () => process.exit(), // it has no way to end its connections
}));
