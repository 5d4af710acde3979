const { lastValueFrom, toArray } = require('rxjs');
const { ConnectFromPool, PgEventSource } = require('@acuris/eventstore-postgresql');
const { tell } = require('./story.cjs');

// It keeps times without a zone, in that of the session.
const store = new PgEventSource(new ConnectFromPool({ options: '-c TimeZone=UTC' }), 'eventstore');

const recorded = ({ position, event }) => ({
  stream: `${event.streamId.category}/${event.streamId.id}`, version: event.eventNumber, global: position.sequence,
  type: event.type, data: event.data, metadata: event.metadata, at: event.timestamp,
});

store.manageSchema.create().then(() => tell({
  append: ({ category, id, events }, count) => store.streamWriter.write({ category, id }, events, count - 1),
  stored: async () => (await lastValueFrom(store.storeReader.readAllForwards().pipe(toArray()))).map(recorded),
  close: () => store.close(),
}));
