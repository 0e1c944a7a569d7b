use super::*;
use crate::authority::hpack::tests::{Encoder, Form, any_form, any_list};
use proptest::prelude::*;

type List = Vec<(Vec<u8>, Vec<u8>)>;
/// Kind, flags, stream, the fields of a block of headers, and what else there is.
type Read = (u8, u8, [u8; 4], List, Vec<u8>);

fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A block of headers in frames of at most `most` bytes, padded and with a priority if so wished.
fn headers(stream: u32, block: &[u8], most: usize, extras: u8) -> Vec<u8> {
    let mut fragments: Vec<&[u8]> = block.chunks(most).collect();
    if fragments.is_empty() {
        fragments.push(&[]);
    }
    let last = fragments.len() - 1;
    let mut frames = Vec::new();
    for (number, fragment) in fragments.into_iter().enumerate() {
        let end = if number == last { END_HEADERS } else { 0 };
        if number > 0 {
            frames.extend(frame_of(CONTINUATION, end, stream, fragment));
            continue;
        }
        let mut payload = Vec::new();
        if extras & PADDED != 0 {
            payload.push(3);
        }
        if extras & PRIORITY != 0 {
            payload.extend([0, 0, 0, 0, 15]);
        }
        payload.extend(fragment);
        if extras & PADDED != 0 {
            payload.extend([0, 0, 0]);
        }
        frames.extend(frame_of(HEADERS, end | extras, stream, &payload));
    }
    frames
}

/// What comes out, if the input comes in pieces of these sizes.
fn repaired(input: &[u8], pieces: &[usize]) -> Vec<u8> {
    let (mut repair, mut out, mut rest) = (Repair::new(), BytesMut::new(), input);
    for piece in pieces.iter().cycle() {
        let (here, after) = split(rest, (*piece).max(1));
        repair.feed(here, &mut out);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    repair.finish(&mut out);
    out.to_vec()
}

/// The frames of a stream, blocks of headers decoded.
fn read(stream: &[u8]) -> Vec<Read> {
    let mut rest = stream.strip_prefix(PREFACE.as_slice()).unwrap();
    let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
    while !rest.is_empty() {
        let (head, payload, after) = frame(rest).unwrap();
        if head.kind != HEADERS {
            frames.push((head.kind, head.flags, head.stream, List::new(), payload.to_vec()));
            rest = after;
            continue;
        }
        let (mut end, mut flags) = (after, head.flags);
        while flags & END_HEADERS == 0 {
            let (head, _, after) = frame(end).unwrap();
            assert_eq!(head.kind, CONTINUATION);
            (end, flags) = (after, head.flags);
        }
        let request = Request::read(&rest[..rest.len() - end.len()]).unwrap();
        let fields = decoder.decode(&request.block, 1 << 20).unwrap();
        let list = fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();
        frames.push((HEADERS, head.flags & END_STREAM, head.stream, list, request.priority));
        rest = end;
    }
    frames
}

fn plain_block(list: &[(&str, &str)]) -> Vec<u8> {
    let fields: Vec<Field> = list
        .iter()
        .map(|(name, value)| Field {
            name: Bytes::copy_from_slice(name.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            never_indexed: false,
        })
        .collect();
    hpack::encode(&fields)
}

fn with_preface(frames: &[u8]) -> Vec<u8> {
    [PREFACE.as_slice(), &frame_of(4, 0, 0, &[]), frames].concat()
}

fn request_list(authority: &str) -> List {
    let list = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/S/M"),
        (":authority", authority),
        ("te", "trailers"),
    ];
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

#[test]
fn authorities_that_are_none_become_one() {
    for (sent, due) in [
        ("%2Frun%2Fdeputize%2Fapi.sock", AUTHORITY),
        ("/run/deputize/api.sock", AUTHORITY),
        ("", AUTHORITY),
        ("unix:///run/api.sock", AUTHORITY),
        ("a b", AUTHORITY),
        ("\u{e4}", AUTHORITY),
        ("localhost", "localhost"),
        ("example.org:8081", "example.org:8081"),
        ("[::1]:1", "[::1]:1"),
    ] {
        let list = [(":method", "POST"), (":authority", sent)];
        let input = with_preface(&headers(1, &plain_block(&list), 100, END_STREAM));
        let out = repaired(&input, &[usize::MAX]);
        let (_, flags, stream, list, _) = read(&out).pop().unwrap();
        assert_eq!(list[1].1, due.as_bytes(), "{sent}");
        assert_eq!((flags, stream), (END_STREAM, [0, 0, 0, 1]));
        assert_eq!(out == input, sent == due, "what is good is left as it is: {sent}");
    }
}

proptest! {
    #[test]
    fn all_else_stays_as_it_was(
        blocks in proptest::collection::vec(
            (any_list(), proptest::collection::vec(any_form(), 12), 1_usize..40, 0_usize..4, any::<Vec<u8>>()),
            1..6,
        ),
        pieces in proptest::collection::vec(1_usize..50, 1..10),
    ) {
        let (input, lists) = stream_of(&blocks);
        let out = repaired(&input, &pieces);
        prop_assert_eq!(&out, &repaired(&input, &[usize::MAX]), "however it comes in");
        let (before, after) = (read(&input), read(&out));
        prop_assert_eq!(before.len(), after.len());
        let mut lists = lists.into_iter();
        for (before, after) in before.iter().zip(&after) {
            prop_assert_eq!((before.0, before.1, before.2, &before.4), (after.0, after.1, after.2, &after.4));
            let due: List = if before.0 == HEADERS { lists.next().unwrap() } else { List::new() };
            prop_assert_eq!(&due, &before.3);
            let due: List = due
                .into_iter()
                .map(|(name, value)| {
                    let is_bad = name == b":authority" && http::uri::Authority::try_from(value.as_slice()).is_err();
                    (name, if is_bad { AUTHORITY.into() } else { value })
                })
                .collect();
            prop_assert_eq!(&due, &after.3);
        }
        let needs_none = before.iter().zip(&after).all(|(before, after)| before.3 == after.3);
        prop_assert_eq!(needs_none, out == input);
    }

    #[test]
    fn rubbish_goes_through_as_it_is(
        rubbish in proptest::collection::vec(any::<u8>(), 0..400),
        begins_well in any::<bool>(),
        pieces in proptest::collection::vec(1_usize..50, 1..10),
    ) {
        let input = if begins_well { with_preface(&rubbish) } else { rubbish };
        let out = repaired(&input, &pieces);
        // A repair needs a well-formed block with a bad authority: chance makes none.
        prop_assert_eq!(out, input);
    }
}

type Blocks = [(List, Vec<Form>, usize, usize, Vec<u8>)];

fn stream_of(blocks: &Blocks) -> (Vec<u8>, Vec<List>) {
    let (mut encoder, mut frames, mut lists) = (Encoder::new(), Vec::new(), Vec::new());
    for (number, (list, forms, most, extras, data)) in blocks.iter().enumerate() {
        let mut block = Vec::new();
        for ((name, value), form) in list.iter().zip(forms) {
            encoder.field((name, value), form, &mut block);
        }
        let stream = u32::try_from(2 * number + 1).unwrap();
        let extras = [0, PADDED, PRIORITY, PADDED | PRIORITY | END_STREAM][*extras];
        // Frames so short only where the block is: their heads count too.
        frames.extend(headers(stream, &block, (*most).max(block.len() / 50), extras));
        frames.extend(frame_of(0, 0, stream, data));
        lists.push(list.clone());
    }
    (with_preface(&frames), lists)
}

#[test]
fn a_block_is_handed_on_when_it_is_whole_and_not_before() {
    let block = plain_block(&[(":authority", "/run/api.sock")]);
    let input = with_preface(&headers(1, &block, 4, 0));
    let (mut repair, mut out) = (Repair::new(), BytesMut::new());
    let (before, last) = input.split_at(input.len() - 1);
    repair.feed(before, &mut out);
    assert_eq!(out.len(), PREFACE.len() + HEAD_BYTES, "the preface and the settings");
    repair.feed(last, &mut out);
    assert_eq!(read(&out)[1].3[0].1, AUTHORITY.as_bytes());
}

#[test]
fn a_continuation_may_be_empty() {
    let block = plain_block(&[(":authority", "/run/api.sock")]);
    let frames = [
        frame_of(HEADERS, 0, 1, &[]),
        frame_of(CONTINUATION, 0, 1, &block),
        frame_of(CONTINUATION, END_HEADERS, 1, &[]),
    ];
    let out = repaired(&with_preface(&frames.concat()), &[7]);
    assert_eq!(read(&out)[1].3[0].1, AUTHORITY.as_bytes());
}

#[test]
fn what_is_malformed_is_left_to_the_next_reader() {
    let block = plain_block(&[(":authority", "/run/api.sock")]);
    let begun = frame_of(HEADERS, 0, 1, &block);
    let whole = headers(1, &block, 100, 0);
    for (what, frames) in [
        ("another frame between", [begun.clone(), frame_of(0, 0, 1, b"x"), whole.clone()].concat()),
        ("an empty one between", [begun.clone(), frame_of(4, 0, 0, b""), whole.clone()].concat()),
        (
            "another stream's",
            [begun.clone(), frame_of(CONTINUATION, END_HEADERS, 3, b""), whole.clone()].concat(),
        ),
        ("a frame too long", frame_of(HEADERS, END_HEADERS, 1, &[0; MAX_FRAME_BYTES + 1])),
        ("more padding than there is", frame_of(HEADERS, END_HEADERS | PADDED, 1, &[9, 0])),
        ("no room for the priority", frame_of(HEADERS, END_HEADERS | PRIORITY, 1, &[0; 4])),
        ("no block", frame_of(HEADERS, END_HEADERS, 1, &[0x80])),
        ("broken off", begun),
    ] {
        let input = with_preface(&frames);
        assert_eq!(repaired(&input, &[11]), input, "{what}");
    }
    let http1 = b"POST / HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(repaired(http1, &[5]), http1);
}

#[test]
fn little_is_kept_of_a_block_that_has_no_end() {
    let mut repair = Repair::new();
    let (mut out, mut out_bytes, mut in_bytes) = (BytesMut::new(), 0, 0);
    let mut feed = |bytes: &[u8]| {
        in_bytes += bytes.len();
        repair.feed(bytes, &mut out);
        out_bytes += out.split().len();
        let kept = in_bytes - out_bytes;
        assert!(kept <= MAX_BLOCK_BYTES + HEAD_BYTES, "{kept}");
        kept
    };
    feed(&with_preface(&frame_of(HEADERS, 0, 1, &[0; MAX_FRAME_BYTES])));
    for _ in 0..64 {
        feed(&frame_of(CONTINUATION, 0, 1, &[0; MAX_FRAME_BYTES]));
    }
    assert_eq!(feed(&[]), 0, "given up");
    // Nor of one that never gets anywhere.
    let mut repair = Repair::new();
    let mut out = BytesMut::new();
    repair.feed(&with_preface(&frame_of(HEADERS, 0, 1, &[])), &mut out);
    let empties = (0..MAX_BLOCK_BYTES / HEAD_BYTES)
        .take_while(|_| {
            repair.feed(&frame_of(CONTINUATION, 0, 1, &[]), &mut out);
            !repair.is_through()
        })
        .count();
    assert!(repair.is_through() && empties > 1000, "{empties}");
}

#[test]
fn what_is_unreadable_after_a_repair_stays_so_for_a_reader_with_another_table() {
    let bad = headers(1, &plain_block(&[(":method", "POST"), (":authority", "/run/api.sock")]), 100, 0);
    // A field that goes into the table, then one that there is only for who has the first; then one that nobody has.
    let unreadable = [0x40, 1, b'a', 1, b'b', 0xbe, 0xff, 0x7f];
    let broken = frame_of(HEADERS, END_HEADERS, 3, &unreadable);
    let interrupted = [frame_of(HEADERS, 0, 3, &unreadable[..6]), frame_of(6, 0, 0, &[0; 8])].concat();
    for (wrong, rest) in [(broken, [].as_slice()), (interrupted, &[0; 8])] {
        let out = repaired(&with_preface(&[bad.clone(), wrong.clone()].concat()), &[usize::MAX]);
        let due = [&frame_of(HEADERS, END_HEADERS, 3, &[0x80]), rest].concat();
        assert!(out.ends_with(&due), "{out:?}");
        let untouched = with_preface(&wrong);
        assert_eq!(
            repaired(&untouched, &[usize::MAX]),
            untouched,
            "who has the sender's table sees it himself"
        );
    }
}

#[test]
fn a_long_block_is_written_in_several_frames() {
    let long = "v".repeat(20_000);
    let list = request_list("/run/api.sock");
    let mut list: Vec<(&str, &str)> = list
        .iter()
        .map(|(name, value)| (std::str::from_utf8(name).unwrap(), std::str::from_utf8(value).unwrap()))
        .collect();
    list.push(("x-long", &long));
    for extras in [0, PRIORITY] {
        let out = repaired(&with_preface(&headers(1, &plain_block(&list), 16_000, extras)), &[4096]);
        let frames = read(&out);
        assert_eq!(frames[1].3.len(), 6);
        assert_eq!(frames[1].3[5].1, long.as_bytes());
        assert_eq!(frames[1].4.len(), if extras == PRIORITY { 5 } else { 0 });
    }
}
