//! A monitor's first reply, applied while it comes: rows at its front are applied before its end has arrived.
//!
//! ```text
//!  {"id":4,"result":[false,"<transaction>",{"Table":{"<uuid>":{"initial":{..}},"<uuid>":..},"Table":..}],"error":null}
//!                                          |         `- rows, handed out whole -'              |
//!                                          depth 1   depth 2   depth 3                         0
//! ```
//!
//! For 100k ports it is one message of 40 MB. To keep all of it would double the peak memory of the service, and
//! clearing that memory is a third of the time of a first sync.

use bytes::{Buf, BufMut, BytesMut};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::codec::Nesting;
use super::replica::SyncedTo;

/// A reply to `monitor_cond_since` that has come in part.
#[derive(Debug)]
pub(super) struct DumpStream {
    id: u64,
    synced_to: SyncedTo,
    /// The length of the scanned part of the buffer. The buffer begins with the byte before the next rows.
    scanned: usize,
    nesting: Nesting,
    /// The end of the last whole row that was not handed out; 0 if there is no such row.
    rows_end: usize,
    table: String,
    /// True after the last table.
    tail: bool,
}

/// The message is no reply to a monitor.
#[derive(Debug, thiserror::Error)]
#[error("in a monitor's first reply: {0}")]
pub(super) struct StreamError(String);

impl DumpStream {
    /// Begins with the buffer's message, if it begins as ovsdb-server writes the reply to the call with this number.
    pub(super) fn begin(buffer: &mut BytesMut, id: u64) -> Option<Self> {
        let rest = buffer.strip_prefix(format!(r#"{{"id":{id},"result":["#).as_bytes())?;
        let (found, rest) = match rest.strip_prefix(b"true") {
            Some(rest) => (true, rest),
            None => (false, rest.strip_prefix(b"false")?),
        };
        let (transaction, rest) = rest.strip_prefix(b",\"")?.split_at_checked(36)?;
        let last_transaction = Uuid::try_parse_ascii(transaction).ok()?;
        let rest = rest.strip_prefix(b"\",")?;
        rest.strip_prefix(b"{")?;
        let head = buffer.len() - rest.len();
        buffer.advance(head);
        Some(Self {
            id,
            synced_to: SyncedTo { found, last_transaction },
            scanned: 0,
            nesting: Nesting::default(),
            rows_end: 0,
            table: String::new(),
            tail: false,
        })
    }

    /// The number of the call that it replies to.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The state after the whole reply.
    pub(super) fn synced_to(&self) -> SyncedTo {
        self.synced_to
    }

    /// Consumes the buffer: hands out the whole rows of one table after another, each time as one JSON object. Returns
    /// true at the end of the reply.
    pub(super) fn advance<E: From<StreamError>>(
        &mut self,
        buffer: &mut BytesMut,
        mut apply: impl FnMut(&str, &[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        while let Some(bracket) = self.nesting.next_bracket(buffer, &mut self.scanned) {
            match (bracket, self.nesting.depth) {
                _ if self.tail => {
                    if self.nesting.depth == 0 {
                        self.end(buffer)?;
                        return Ok(true);
                    }
                }
                (b'{', 1) | (_, 3..) => {}
                (b'{', 2) => self.begin_table(buffer)?,
                (b'}', 2) => self.rows_end = self.scanned,
                (b'}', 1) => {
                    self.hand_out(buffer, &mut apply)?;
                    self.forget(buffer, self.scanned);
                }
                (b'}', 0) => {
                    self.forget(buffer, self.scanned);
                    self.tail = true;
                    // The array of the result and the message are still open.
                    self.nesting.depth = 2;
                }
                _ => return Err(StreamError("a table that is no object".to_owned()).into()),
            }
        }
        self.hand_out(buffer, &mut apply)?;
        Ok(false)
    }

    /// `{"Table":{`, or `,` at the beginning.
    fn begin_table(&mut self, buffer: &mut BytesMut) -> Result<(), StreamError> {
        let brace = self.scanned - 1;
        let key = buffer[..brace].split_first().map(|(_, rest)| rest.trim_ascii_end());
        let key = key.and_then(|key| key.strip_suffix(b":"));
        let table = serde_json::from_slice(key.unwrap_or_default());
        self.table = table.map_err(|error| StreamError(format!("the name of a table: {error}")))?;
        self.forget(buffer, brace);
        Ok(())
    }

    /// Hands out the rows up to the last whole one. Replaces the bytes before and after them by braces.
    fn hand_out<E>(
        &mut self,
        buffer: &mut BytesMut,
        apply: &mut impl FnMut(&str, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = std::mem::take(&mut self.rows_end);
        if end == 0 {
            return Ok(());
        }
        let behind = buffer.get(end).copied();
        match behind {
            Some(_) => buffer[end] = b'}',
            None => buffer.put_u8(b'}'),
        }
        buffer[0] = b'{';
        apply(&self.table, &buffer[..=end])?;
        match behind {
            Some(byte) => buffer[end] = byte,
            None => buffer.truncate(end),
        }
        self.forget(buffer, end);
        Ok(())
    }

    fn forget(&mut self, buffer: &mut BytesMut, count: usize) {
        buffer.advance(count);
        self.scanned -= count;
    }

    /// `],"error":null}`
    fn end(&mut self, buffer: &mut BytesMut) -> Result<(), StreamError> {
        #[derive(serde::Deserialize)]
        struct End<'a> {
            #[serde(borrow, default)]
            error: Option<&'a RawValue>,
        }
        let mut message = br#"{"result":[null"#.to_vec();
        message.extend_from_slice(&buffer[..self.scanned]);
        self.forget(buffer, self.scanned);
        match serde_json::from_slice::<End<'_>>(&message) {
            Ok(End { error: None }) => Ok(()),
            Ok(End { error: Some(error) }) => Err(StreamError(format!("an error behind its result: {error}"))),
            Err(error) => Err(StreamError(format!("its end: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    type Tables = Vec<(String, Map<String, Value>)>;

    fn message(found: bool, tables: &Tables) -> String {
        let tables: Vec<String> =
            tables.iter().map(|(name, rows)| format!("{}:{}", json!(name), json!(rows))).collect();
        let transaction = Uuid::from_u128(7);
        format!(r#"{{"id":4,"result":[{found},"{transaction}",{{{}}}],"error":null}}"#, tables.join(","))
    }

    /// The tables from a stream that is cut in this way, and the rest of the stream.
    fn streamed(stream: &[u8], cuts: &[usize]) -> Result<(Tables, String), String> {
        let mut buffer = BytesMut::new();
        let mut rest = stream;
        let mut dump = None;
        let mut tables = Tables::new();
        let mut cuts = cuts.iter().cycle();
        loop {
            if let Some(dump) = &mut dump {
                let ended = DumpStream::advance(dump, &mut buffer, |table, rows| {
                    let rows: Map<String, Value> = serde_json::from_slice(rows).expect("an object of rows");
                    match tables.last_mut() {
                        Some((last, present)) if last == table => present.extend(rows),
                        _ => tables.push((table.to_owned(), rows)),
                    }
                    Ok::<(), StreamError>(())
                });
                if ended.map_err(|error| error.to_string())? {
                    buffer.extend_from_slice(rest);
                    return Ok((tables, String::from_utf8_lossy(&buffer).into_owned()));
                }
            } else {
                dump = DumpStream::begin(&mut buffer, 4);
                if dump.is_some() {
                    continue;
                }
            }
            if rest.is_empty() {
                return Err("it never ended".to_owned());
            }
            let cut = cuts.next().map_or(1, |cut| (*cut).clamp(1, rest.len()));
            buffer.extend_from_slice(&rest[..cut]);
            rest = &rest[cut..];
        }
    }

    fn row(text: &str) -> Value {
        json!({"initial": {"name": text, "external_ids": ["map", [[text, "}],{"], ["\\", "\""]]]}})
    }

    #[test]
    fn every_cut_gives_the_same_rows_and_leaves_the_next_message() {
        let rows = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), row(name))).collect();
        let tables = vec![("A".to_owned(), rows(&["a", "b{"])), ("B".to_owned(), rows(&["c\"}"]))];
        let stream = message(false, &tables) + r#"{"id":9"#;
        for cut in 1..stream.len() {
            let came = streamed(stream.as_bytes(), &[cut]);
            assert_eq!(came, Ok((tables.clone(), r#"{"id":9"#.to_owned())), "pieces of {cut}");
        }
    }

    #[test]
    fn a_dump_without_tables_ends_too() {
        assert_eq!(streamed(message(true, &Vec::new()).as_bytes(), &[5]), Ok((Vec::new(), String::new())));
        let empty = vec![("A".to_owned(), Map::new())];
        assert_eq!(streamed(message(true, &empty).as_bytes(), &[5]), Ok((Vec::new(), String::new())));
    }

    #[test]
    fn another_message_is_not_taken_for_a_dump() {
        for other in [
            r#"{"id":5,"result":[false,"00000000-0000-0000-0000-000000000000",{"T":{"u":{"#,
            r#"{"id":4,"result":[{"uuid":["uuid","00000000-0000-0000-0000-000000000000"]}"#,
            r#"{"id":4,"result":null,"error":{"error":"no such database"}}"#,
            r#"{"method":"update3","params":["m","00000000-0000-0000-0000-000000000000",{"T":{"#,
        ] {
            let mut buffer = BytesMut::from(other);
            assert!(DumpStream::begin(&mut buffer, 4).is_none(), "{other}");
            assert_eq!(buffer, other, "left as it was");
        }
    }

    #[test]
    fn a_message_that_only_begins_like_a_dump_is_an_error() {
        let head = r#"{"id":4,"result":[false,"00000000-0000-0000-0000-000000000000",{"#;
        for (tail, error) in [
            (r#""T":["x"]}],"error":null}"#, "a table that is no object"),
            (r#"1:{"u":{}}}],"error":null}"#, "the name of a table"),
            (r#"}],"error":"late"}"#, "an error behind its result: \"late\""),
        ] {
            let came = streamed(format!("{head}{tail}").as_bytes(), &[1_000]).expect_err(tail);
            assert!(came.contains(error), "{came}");
        }
    }

    proptest! {
        #[test]
        fn any_rows_in_any_pieces_come_out(
            tables in proptest::collection::vec(("[A-Za-z_\"]{1,5}", proptest::collection::vec(".*", 0..6)), 0..4),
            cuts in proptest::collection::vec(1usize..60, 1..50),
        ) {
            let mut given = Tables::new();
            for (at, (name, texts)) in tables.iter().enumerate() {
                let rows: Map<String, Value> = texts.iter().map(|text| (text.clone(), row(text))).collect();
                given.push((format!("{name}{at}"), rows));
            }
            let came = streamed(message(false, &given).as_bytes(), &cuts);
            given.retain(|(_, rows)| !rows.is_empty());
            prop_assert_eq!(came, Ok((given, String::new())));
        }
    }
}
