process.env.LOG_LEVEL = 'fatal'; // it logs to stdout, from another thread

const { randomUUID } = require('node:crypto');
const { PostgresStore } = require('@rotorsoft/act-pg');
const { tell } = require('./story.cjs');

const { PGHOST: host, PGPORT: port, PGUSER: user, PGDATABASE: database } = process.env;
const store = new PostgresStore({ host, port, user, database });

const append = ({ category, id, events }, count) => {
  const { correlationId: correlation, ...more } = events[0].metadata;
  const meta = { correlation, causation: {}, ...more };
  return store.commit(`${category}-${id}`, events.map(({ type, data }) => ({ name: type, data })), meta, count - 1);
};

const stored = async () => {
  const events = [];
  await store.query(({ id, stream, version, name, data, created, meta }) => {
    events.push({ stream, version, global: id, type: name, data, metadata: meta, at: created });
  });
  return events;
};

const consumers = async () => {
  const leased = await store.lease([{ stream: 'reader', by: randomUUID(), at: 3, retry: 0, block: false }]);
  await store.ack(leased);
  return { reader: 3 };
};

store.seed().then(() => tell({ append, stored, consumers, close: () => store.dispose() }));
