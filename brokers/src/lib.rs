//! The Windlass brokers: in-memory and RabbitMQ.
