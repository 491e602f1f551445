//! Finds where one JSON-RPC message ends and the next begins.
//!
//! OVSDB sends JSON objects back to back over a bare stream (RFC 7047 section 4), without lengths and without a
//! reliable separator. The [`Splitter`] looks at each byte once, however the stream was cut into reads, and returns
//! each message as one contiguous [`Bytes`]. It follows only brackets and strings; the parser validates the JSON.

use bytes::{Bytes, BytesMut};

/// No message of a healthy server comes near this: 100k ports are about 53 MB.
const LONGEST_MESSAGE: usize = 1 << 30;
/// The buffer keeps capacity up to this length; a longer message's capacity is released.
const LONG_MESSAGE: usize = 1 << 20;

/// The stream does not consist of JSON objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Something other than an object between two messages.
    #[error("the server sent the byte {byte:#04x} where a JSON object should begin: is this an OVSDB server?")]
    NotAnObject {
        /// The first byte that is wrong.
        byte: u8,
    },
    /// A message without an end.
    #[error("the server sent a message of more than {LONGEST_MESSAGE} bytes")]
    TooLong,
}

/// Follows the brackets and strings of a stream of JSON, wherever it is cut.
#[derive(Debug, Clone, Default)]
pub(super) struct Nesting {
    /// Open brackets and braces.
    pub(super) depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Moves `at` behind the next bracket and returns it. `None` if the bytes end before one.
    pub(super) fn next_bracket(&mut self, bytes: &[u8], at: &mut usize) -> Option<u8> {
        while *at < bytes.len() {
            if self.in_string && !self.escaped {
                *at += plain(&bytes[*at..]);
            }
            let byte = *bytes.get(*at)?;
            *at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => {
                    self.depth += 1;
                    return Some(byte);
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    return Some(byte);
                }
                _ => {}
            }
        }
        None
    }
}

/// The number of bytes before the first quote or backslash. Looks at eight at a time, since strings make up most of the
/// stream.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    // The lowest zero byte has its high bit set here, and the bytes below it do not.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let mut count = 0;
    for word in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return count + (found.trailing_zeros() / 8) as usize;
        }
        count += 8;
    }
    count + bytes[count..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count()
}

/// Cuts a byte stream into JSON objects, keeping its place between reads.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: BytesMut,
    /// The length of the part of `buffer` that has been scanned.
    scanned: usize,
    /// Depth 0 is between messages.
    nesting: Nesting,
}

impl Splitter {
    /// The buffer that the next read appends to.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole message, or `None` if more bytes are needed.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, CodecError> {
        if self.nesting.depth == 0 && !self.skip_to_object()? {
            return Ok(None);
        }
        while self.nesting.next_bracket(&self.buffer, &mut self.scanned).is_some() {
            if self.nesting.depth == 0 {
                return Ok(Some(self.take_message()));
            }
        }
        if self.buffer.len() > LONGEST_MESSAGE { Err(CodecError::TooLong) } else { Ok(None) }
    }

    /// Cuts the scanned bytes off as a message.
    fn take_message(&mut self) -> Bytes {
        let message = self.buffer.split_to(self.scanned).freeze();
        self.scanned = 0;
        if message.len() > LONG_MESSAGE {
            // The rest shares the long message's allocation, and would keep it as long as the connection lasts.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        message
    }

    /// Offers the incomplete message in the buffer to `taker`. If `taker` accepts it, it consumes the rest from the
    /// buffer.
    pub(super) fn hand_over<T>(&mut self, taker: impl FnOnce(&mut BytesMut) -> Option<T>) -> Option<T> {
        let taken = taker(&mut self.buffer)?;
        self.scanned = 0;
        self.nesting = Nesting::default();
        Some(taken)
    }

    /// Drops white space between messages. Returns true if an object begins at the buffer's start.
    fn skip_to_object(&mut self) -> Result<bool, CodecError> {
        let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let _ = self.buffer.split_to(blank);
        match self.buffer.first() {
            None => Ok(false),
            Some(b'{') => Ok(true),
            Some(&byte) => Err(CodecError::NotAnObject { byte }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MESSAGES: [&str; 5] = [
        r#"{"id":0,"method":"echo","params":[]}"#,
        r#"{"a":"}{][\"\\","b":[[],{"c":"\\\\"}]}"#,
        r#"{}"#,
        r#"{"text":"päüx → \u007d \" { "}"#,
        r#"{"id":null,"method":"update3","params":["m","00",{"T":{"u":{"insert":{"n":"a\\"}}}}]}"#,
    ];

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        for chunk in chunks {
            splitter.buffer().extend_from_slice(chunk);
            while let Some(message) = splitter.next_message().expect("a stream of objects") {
                found.push(String::from_utf8(message.to_vec()).expect("utf-8"));
            }
        }
        found
    }

    #[test]
    fn every_split_point_gives_the_same_messages() {
        let stream = MESSAGES.join("\n ").into_bytes();
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let chunks = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(split(&chunks), MESSAGES, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn single_bytes_give_the_same_messages() {
        let stream = MESSAGES.concat().into_bytes();
        let chunks: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(split(&chunks), MESSAGES);
    }

    #[test]
    fn the_room_of_a_long_message_is_given_back() {
        let mut splitter = Splitter::default();
        let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(8 << 20));
        for (chunk, next) in [(long.as_str(), r#"{"next""#), (":1}{}", "")] {
            for piece in [chunk, next].concat().into_bytes().chunks(256 << 10) {
                splitter.buffer().reserve(256 << 10);
                splitter.buffer().extend_from_slice(piece);
                while splitter.next_message().expect("objects").is_some() {}
            }
            splitter.buffer().reserve(256 << 10);
            assert!(splitter.buffer().capacity() < 1 << 20, "{}", splitter.buffer().capacity());
        }
    }

    #[test]
    fn other_bytes_than_an_object_are_refused() {
        for (stream, byte) in [("HTTP/1.1 400", b'H'), ("{} ]", b']'), ("[1]", b'['), ("\"x\"", b'"')] {
            let mut splitter = Splitter::default();
            splitter.buffer().extend_from_slice(stream.as_bytes());
            let error = loop {
                match splitter.next_message() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{stream} was accepted"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error, CodecError::NotAnObject { byte });
        }
    }

    proptest! {
        #[test]
        fn any_json_object_in_any_chunks_comes_out_whole(
            texts in proptest::collection::vec(".*", 1..6),
            cuts in proptest::collection::vec(1usize..40, 1..200),
        ) {
            let messages: Vec<String> =
                texts.iter().map(|text| serde_json::json!({"k": [text, {text: 1}]}).to_string()).collect();
            let stream = messages.concat().into_bytes();
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, more) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = more;
            }
            prop_assert_eq!(split(&chunks), messages);
        }
    }
}
