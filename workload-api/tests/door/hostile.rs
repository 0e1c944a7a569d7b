//! Those who take and take, and those who never read.

use crate::{
    client::{NODE, in_time, next, open_with, open_with_entry, secured, web},
    raw::{END_HEADERS, HEADERS, Raw, call, literal},
};
use deputize_workload_api::{Limits, fakes::FakeProcess, proto::X509svidRequest};
use spiffe::SpiffeId;
use std::{sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt as _, net::UnixStream};
use tonic::Code;

#[tokio::test]
async fn ten_thousand_connections_leave_nothing_behind() {
    let limits = Limits { connections_of_one_user: 50, starts_at_once: 100_000, ..Limits::default() };
    let door = open_with(limits);
    door.source.set_entries(vec![web()]);
    let mut kept = Vec::new();
    for number in 0..10_000 {
        let mut stream = UnixStream::connect(&door.path).await.unwrap();
        // Some send nothing, some rubbish, some the beginning of something; some stay.
        let said: &[u8] = [b"".as_slice(), b"rubbish", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"][number % 3];
        let _ = stream.write_all(said).await;
        if number % 10 == 0 {
            kept.push(stream);
        }
        if kept.len() > 200 {
            kept.clear();
        }
    }
    drop(kept);
    door.is_served_soon().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_ended() {
    let limits = Limits {
        connections_of_one_user: 1,
        ping_interval: Duration::from_millis(50),
        ping_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let door = open_with(limits);
    door.source.set_entries(vec![web()]);
    let mut silent = Raw::connect(&door.path).await;
    silent.frame(HEADERS, END_HEADERS, 1, &call("localhost")).await.unwrap();
    silent.message(1).await;
    in_time(door.source.has_made(1)).await;
    door.is_served_soon().await;
}

#[tokio::test]
async fn a_client_that_never_reads_has_nothing_made_for_it() {
    let door = open_with_entry();
    let mut silent = Raw::connect(&door.path).await;
    silent.frame(HEADERS, END_HEADERS, 1, &call("localhost")).await.unwrap();
    silent.message(1).await;
    let mut honest = door.x509().await;
    next(&mut honest).await.unwrap();
    // More than the socket, the window and the buffers of one stream hold.
    for number in 0..100_u8 {
        door.source.change_bundles(|bundles| {
            Arc::make_mut(&mut bundles.own).x509_authorities = vec![vec![number; 32 * 1024]];
        });
        let state = next(&mut honest).await.unwrap();
        assert_eq!(state.svids[0].bundle[0], number);
    }
    let looks = door.process.attested();
    assert!(looks < 150, "it is looked at for each state that it does not take: {looks}");
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_ended() {
    let limits =
        Limits { connections_of_one_user: 1, silence: Duration::from_millis(100), ..Limits::default() };
    let door = open_with(limits);
    door.source.set_entries(vec![web()]);
    let _silent = UnixStream::connect(&door.path).await.unwrap();
    door.is_served_soon().await;
}

#[tokio::test]
async fn a_connection_whose_calls_are_not_let_in_is_ended() {
    let door = open_with(short_silence());
    door.source.set_entries(vec![web()]);
    let mut hostile = Raw::connect(&door.path).await;
    // Without the header that the specification demands, which is the last.
    let mut headers = call("localhost");
    headers.truncate(headers.len() - literal("workload.spiffe.io", "true", true).len());
    hostile.frame(HEADERS, END_HEADERS, 1, &headers).await.unwrap();
    hostile.until(HEADERS, 1).await.expect("an answer");
    hostile.ends().await;
    door.is_served_soon().await;
}

#[tokio::test]
async fn a_connection_without_a_call_is_ended_and_one_with_a_stream_is_not() {
    let door = open_with(Limits { connections_of_one_user: 8, ..short_silence() });
    door.source.set_entries(vec![web()]);
    let mut stream = door.x509().await;
    next(&mut stream).await.unwrap();
    // One has asked and was answered, one was refused, one is in the middle of saying what it wants.
    let mut answered = Raw::connect(&door.path).await;
    answered.frame(HEADERS, END_HEADERS, 1, &call("localhost")).await.unwrap();
    answered.message(1).await;
    answered.data(1).await.expect("an answer");
    answered.frame(RST_STREAM, 0, 1, &CANCEL).await.unwrap();
    answered.ends().await;
    door.source.set_entries(Vec::new());
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::PermissionDenied);
    door.source.set_entries(vec![web()]);
    let mut stream = door.x509().await;
    next(&mut stream).await.unwrap();
    let mut reflecting = Raw::connect(&door.path).await;
    let mut headers = vec![0x86, 0x83];
    for (name, value) in [
        (":path", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("workload.spiffe.io", "true"),
    ] {
        headers.extend(literal(name, value, true));
    }
    reflecting.frame(HEADERS, END_HEADERS, 1, &headers).await.unwrap();
    reflecting.ends().await;
    // By now the stream has been without news for longer than the others were silent.
    let mut named = web();
    named.hint = "told".into();
    door.source.set_entries(vec![named]);
    assert_eq!(next(&mut stream).await.unwrap().svids[0].hint, "told");
}

#[tokio::test]
async fn strangers_do_not_take_the_places_of_who_is_known() {
    let door = open_with(Limits { connections: 8, connections_of_one_user: 8, ..Limits::default() });
    door.source.set_entries(vec![web()]);
    let mut first = door.x509().await;
    next(&mut first).await.unwrap();
    let mut held = Vec::new();
    for user in 100..108 {
        let stranger = FakeProcess::new(SpiffeId::new(NODE).unwrap(), user);
        door.reception.set(Ok(Arc::new(stranger)));
        let mut raw = Raw::connect(&door.path).await;
        // Let in, and told that there is nothing for it; or not let in.
        let _ = raw.frame(HEADERS, END_HEADERS, 1, &call("localhost")).await;
        if raw.0.write_all(&[0, 0, 5, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]).await.is_ok()
            && raw.until(HEADERS, 1).await.is_some()
        {
            held.push(raw);
        }
    }
    assert_eq!(held.len(), 4);
    door.reception.set(Ok(Arc::clone(&door.process)));
    let mut streams = vec![first];
    for _ in 0..3 {
        let mut stream = door.x509().await;
        next(&mut stream).await.unwrap();
        streams.push(stream);
    }
}

fn short_silence() -> Limits {
    Limits { connections_of_one_user: 1, silence: Duration::from_millis(100), ..Limits::default() }
}

const RST_STREAM: u8 = 3;
/// An error code (RFC 9113 §7).
const CANCEL: [u8; 4] = [0, 0, 0, 8];

#[tokio::test]
async fn a_client_that_never_reads_does_not_hold_up_a_stop() {
    let door = open_with(Limits { drain: Duration::from_millis(100), ..Limits::default() });
    door.source.set_entries(vec![web()]);
    let mut silent = Raw::connect(&door.path).await;
    silent.frame(HEADERS, END_HEADERS, 1, &call("localhost")).await.unwrap();
    silent.message(1).await;
    let _idle = UnixStream::connect(&door.path).await.unwrap();
    in_time(door.source.has_made(1)).await;
    door.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(20), door.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_thousand_streams_are_served_and_told() {
    let door = open_with_entry();
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut client = door.client().await;
        for _ in 0..100 {
            streams.push(client.fetch_x509svid(secured(X509svidRequest {})).await.unwrap().into_inner());
        }
    }
    for stream in &mut streams {
        next(stream).await.unwrap();
    }
    assert_eq!(door.source.made(), 1);
    let mut named = web();
    named.hint = "told".into();
    door.source.set_entries(vec![named]);
    for stream in &mut streams {
        assert_eq!(next(stream).await.unwrap().svids[0].hint, "told");
    }
    assert_eq!(door.source.made(), 1);
}
