use crate::{JobId, Kind, Lane, OrderingKey, Priority, QueueName, TraceParent};

/// What travels through a broker: a reference to one attempt of a job, about 100 bytes. The payload stays in the
/// store, so any message may be lost, repeated, late or out of order without harm.
///
/// The encoding starts with a format version, so that messages of a newer release are recognised and set aside
/// instead of being misread. Numbers are big-endian; a text is one length byte and its bytes.
///
/// | bytes | field |
/// |---|---|
/// | 1 | version, now 1 |
/// | 16 | job id |
/// | 4 | attempt |
/// | 1 | priority |
/// | 1 + n | queue |
/// | 1 + n | kind |
/// | 1 + n | W3C traceparent, empty for none |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The job it announces.
    pub job_id: JobId,
    /// Which claim of the job it asks for; for logs, since the store's state decides alone.
    pub attempt: u32,
    /// Where it travels.
    pub lane: Lane,
    /// The job's kind, so that a worker without a handler need not claim it.
    pub kind: Kind,
    /// The trace that the enqueue was part of.
    pub trace: Option<TraceParent>,
    /// The job's ordering key, for brokers that keep messages of one key together. Not among the bytes, and not for
    /// workers, whom it tells nothing: the store lets out one job of a key at a time.
    pub ordering_key: Option<OrderingKey>,
}

/// Why bytes are no message for this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Written by a release with another format.
    #[error("message format version {0} is not known to this release, which reads version {VERSION}")]
    Version(u8),
    /// Not a message of ours.
    #[error("not a Windlass message: {0}")]
    Garbage(&'static str),
}

const VERSION: u8 = 1;

impl Message {
    /// The bytes to hand to a broker.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.push(VERSION);
        bytes.extend_from_slice(self.job_id.as_uuid().as_bytes());
        bytes.extend_from_slice(&self.attempt.to_be_bytes());
        bytes.push(self.lane.priority as u8);
        let trace = self.trace.as_ref().map_or("", TraceParent::as_str);
        for text in [self.lane.queue.as_str(), self.kind.as_str(), trace] {
            // Names and trace contexts are checked when made; the longest has 128 bytes.
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Another format version, or bytes that are no message. Neither will ever get better by redelivery.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        match reader.array::<1>()? {
            [VERSION] => {}
            [other] => return Err(MessageError::Version(other)),
        }
        let job_id = JobId::from(uuid::Uuid::from_bytes(reader.array()?));
        let attempt = u32::from_be_bytes(reader.array()?);
        let [priority] = reader.array()?;
        let priority = Priority::try_from(priority).map_err(|_| MessageError::Garbage("priority"))?;
        let queue: QueueName = reader.text()?.parse().map_err(|_| MessageError::Garbage("queue"))?;
        let kind: Kind = reader.text()?.parse().map_err(|_| MessageError::Garbage("kind"))?;
        let trace = match reader.text()? {
            "" => None,
            text => Some(text.parse().map_err(|_| MessageError::Garbage("traceparent"))?),
        };
        if !reader.0.is_empty() {
            return Err(MessageError::Garbage("trailing bytes"));
        }
        Ok(Self { job_id, attempt, lane: Lane { queue, priority }, kind, trace, ordering_key: None })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(MessageError::Garbage("too short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn text(&mut self) -> Result<&'a str, MessageError> {
        let [len] = self.array()?;
        let (head, rest) =
            self.0.split_at_checked(usize::from(len)).ok_or(MessageError::Garbage("too short"))?;
        self.0 = rest;
        std::str::from_utf8(head).map_err(|_| MessageError::Garbage("not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        let trace = prop::option::of(Just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        (any::<u128>(), any::<u32>(), 0u8..4, "[A-Za-z0-9_.-]{1,64}", "[A-Za-z0-9_.-]{1,128}", trace)
            .prop_map(|(id, attempt, priority, queue, kind, trace)| Message {
                job_id: uuid::Uuid::from_u128(id).into(),
                attempt,
                lane: Lane { queue: queue.parse().unwrap(), priority: priority.try_into().unwrap() },
                kind: kind.parse().unwrap(),
                trace: trace.map(|t| t.parse().unwrap()),
                ordering_key: None,
            })
    }

    proptest! {
        #[test]
        fn round_trips(message in message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn a_cut_or_padded_message_is_garbage(message in message(), cut in 0usize..300) {
            let mut bytes = message.encode();
            bytes.push(0);
            prop_assert!(matches!(Message::decode(&bytes), Err(MessageError::Garbage(_))));
            bytes.pop();
            let cut = cut % bytes.len();
            prop_assert!(matches!(Message::decode(&bytes[..cut]), Err(MessageError::Garbage(_))));
        }

        #[test]
        fn any_bytes_are_answered_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::decode(&bytes);
        }
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(Message::decode(&[2, 0, 0]), Err(MessageError::Version(2)));
    }

    #[test]
    fn the_format_never_changes_under_version_1() {
        let message = Message {
            job_id: uuid::Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10).into(),
            attempt: 3,
            lane: Lane { queue: "mail".parse().unwrap(), priority: Priority::High },
            kind: "a.b".parse().unwrap(),
            trace: None,
            ordering_key: Some("not among them".parse().unwrap()),
        };
        assert_eq!(message.encode(), b"\x01\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\0\0\0\x03\x02\x04mail\x03a.b\0");
    }
}
