//! Any bytes, cut anywhere: the splitter gives what it gives of the whole, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ovn_kubevirt::ovsdb::Splitter;

/// All messages, and whether the stream was refused.
fn split<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut splitter, mut messages) = (Splitter::default(), Vec::new());
    for chunk in chunks {
        splitter.buffer().extend_from_slice(chunk);
        loop {
            match splitter.next_message() {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, stream) = input;
    let whole = split(std::iter::once(stream));
    let cut = split(stream.chunks(usize::from(size).max(1)));
    assert_eq!(whole, cut);
});
