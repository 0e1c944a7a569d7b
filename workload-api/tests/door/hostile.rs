//! Those who take and take, and those who never read.

use crate::{
    client::{next, open_with, open_with_entry, secured, until, web},
    raw::{END_HEADERS, HEADERS, Raw, call},
};
use deputize_workload_api::{Limits, proto::X509svidRequest};
use std::{sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

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
    until("the call is there", || door.source.made() == 1).await;
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
async fn a_client_that_never_reads_does_not_hold_up_a_stop() {
    let door = open_with(Limits { drain: Duration::from_millis(100), ..Limits::default() });
    door.source.set_entries(vec![web()]);
    let mut silent = Raw::connect(&door.path).await;
    silent.frame(HEADERS, END_HEADERS, 1, &call("localhost")).await.unwrap();
    silent.message(1).await;
    let _idle = UnixStream::connect(&door.path).await.unwrap();
    until("the call is there", || door.source.made() == 1).await;
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
