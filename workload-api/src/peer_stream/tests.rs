//! Connections that are inherited, handed on, and held open by others.

use super::*;
use crate::peer::{
    demand_credentials,
    tests::actor::{Actor, Stage},
};
use nix::sys::socket::{ControlMessage, sendmsg};
use std::{
    fs,
    io::Write,
    os::{fd::AsFd, unix::net::UnixStream as Connection},
    path::Path,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

fn over(stream: UnixStream) -> PeerStream {
    let peer = Arc::new(Peer::of(&stream).unwrap());
    PeerStream::new(stream, peer).unwrap()
}

async fn played(stage: &Stage, steps: &str) -> (Actor, PeerStream) {
    let actor = stage.start(steps);
    (actor, over(stage.accept().await))
}

/// A connection of this very program to itself.
async fn own() -> (Connection, PeerStream) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    demand_credentials(&listener).unwrap();
    let client = Connection::connect(&path).unwrap();
    (client, over(listener.accept().await.unwrap().0))
}

async fn expect(stream: &mut PeerStream, text: &str) {
    let mut read = vec![0; text.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(read, text.as_bytes());
}

async fn refusal(stream: &mut PeerStream) -> io::ErrorKind {
    stream.read(&mut [0; 64]).await.unwrap_err().kind()
}

#[tokio::test]
async fn what_a_child_writes_ends_the_connection_and_what_its_parent_wrote_is_read() {
    let stage = Stage::set();
    let (_actor, mut stream) = played(&stage, "connect; send:mine; start:send:the child's; await").await;
    expect(&mut stream, "mine").await;
    assert_eq!(refusal(&mut stream).await, io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_parent_whose_child_holds_the_connection_in_silence_goes_on() {
    let stage = Stage::set();
    let (mut actor, mut stream) =
        played(&stage, "connect; send:one; start:linger; send:two; await; send:three; await").await;
    expect(&mut stream, "onetwo").await;
    actor.go_on();
    expect(&mut stream, "three").await;
}

#[tokio::test]
async fn bytes_of_two_processes_are_never_read_together() {
    let stage = Stage::set();
    // Both lie in the socket before anything is read.
    let (_actor, mut stream) = played(&stage, "connect; start:send:bad; await").await;
    let mut into = [0; 64];
    assert_eq!(stream.read(&mut into).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(into.iter().filter(|byte| b"bad".contains(byte)).count(), 3, "read, but not handed out");
}

#[tokio::test]
async fn it_ends_with_who_connected_while_a_child_holds_it_open() {
    let stage = Stage::set();
    let (mut actor, mut stream) = played(&stage, "connect; start:linger; send:ready; await").await;
    expect(&mut stream, "ready").await;
    let mut into = [0; 64];
    {
        let mut waiting = std::pin::pin!(stream.read(&mut into));
        let pending =
            std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending()));
        assert!(pending.await, "there is nothing to read");
        actor.go_on();
        assert_eq!(waiting.await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
    // The child would get it.
    assert_eq!(stream.write(b"secret").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    let slices = [IoSlice::new(b"secret")];
    assert_eq!(stream.write_vectored(&slices).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn what_was_written_before_the_end_is_not_taken_after_it() {
    let stage = Stage::set();
    let (mut actor, mut stream) = played(&stage, "connect; start:linger; send:too late; await").await;
    actor.kill_without_reaping();
    stream.peer().gone().await;
    assert_eq!(refusal(&mut stream).await, io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn bytes_from_before_the_connection_was_accepted_have_a_sender() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    demand_credentials(&listener).unwrap();
    Connection::connect(&path).unwrap();
    let _first = listener.accept().await.unwrap();
    let mut client = Connection::connect(&path).unwrap();
    client.write_all(b"early").unwrap();
    let mut stream = over(listener.accept().await.unwrap().0);
    expect(&mut stream, "early").await;
}

#[tokio::test]
async fn bytes_without_a_sender_are_refused() {
    let (ours, mut theirs) = Connection::pair().unwrap();
    // Nobody had asked for senders yet: so would be whatever finds its way around the noting of them.
    theirs.write_all(b"anonymous").unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut stream = over(UnixStream::from_std(ours).unwrap());
    assert_eq!(refusal(&mut stream).await, io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn descriptors_that_are_sent_along_are_closed_and_end_it() {
    let (client, mut stream) = own().await;
    let marked = tempfile::NamedTempFile::new().unwrap();
    let held: Vec<_> = (0..200).map(|_| marked.reopen().unwrap()).collect();
    let before = descriptors_of(marked.path());
    let numbers: Vec<_> = held.iter().map(AsRawFd::as_raw_fd).collect();
    let slices = [IoSlice::new(b"take these")];
    let rights = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(client.as_raw_fd(), &slices, &rights, MsgFlags::empty(), None).unwrap();
    assert_eq!(refusal(&mut stream).await, io::ErrorKind::InvalidData);
    assert_eq!(descriptors_of(marked.path()), before);
    // One is not let in either, where the sender leaves a gap.
    let (client, mut stream) = own().await;
    let one = [ControlMessage::ScmRights(&numbers[..1])];
    sendmsg::<()>(client.as_raw_fd(), &slices, &one, MsgFlags::empty(), None).unwrap();
    assert_eq!(refusal(&mut stream).await, io::ErrorKind::InvalidData);
    assert_eq!(descriptors_of(marked.path()), before);
    assert_eq!(before, 201);
}

fn descriptors_of(path: &Path) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
    all.filter(|one| fs::read_link(one.path()).is_ok_and(|found| found == path)).count()
}

#[tokio::test]
async fn everything_arrives_once_and_in_order_both_ways() {
    let (client, stream) = own().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    client.set_nonblocking(true).unwrap();
    let mut client = UnixStream::from_std(client).unwrap();
    let (mut from_client, mut to_client) = client.split();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let echo = async {
        let mut buffer = vec![0; 10_007];
        loop {
            let read = reader.read(&mut buffer).await.unwrap();
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            let (first, second) = bytes.split_at(read / 3);
            // Written in two pieces at once, as HTTP/2 writes its frames.
            let written = writer.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]).await.unwrap();
            writer.write_all(&bytes[written..]).await.unwrap();
        }
        writer.flush().await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let send = async {
        for piece in sent.chunks(65_537) {
            to_client.write_all(piece).await.unwrap();
        }
        to_client.shutdown().await.unwrap();
    };
    let (_, (), read) = tokio::join!(echo, send, from_client.read_to_end(&mut got));
    read.unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[tokio::test]
async fn no_room_is_no_end() {
    let (mut client, mut stream) = own().await;
    assert_eq!(stream.read(&mut []).await.unwrap(), 0);
    client.write_all(b"still there").unwrap();
    assert_eq!(stream.read(&mut []).await.unwrap(), 0);
    expect(&mut stream, "still there").await;
    drop(client);
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_process_that_was_sent_the_connection_is_refused() {
    // The pair was made by this process; the child gets an end of it as its input.
    let (ours, theirs) = Connection::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut stream = over(UnixStream::from_std(ours).unwrap());
    let input = theirs.as_fd().try_clone_to_owned().unwrap();
    let script = "printf stranger >&0";
    let mut child = std::process::Command::new("sh").args(["-c", script]).stdin(input).spawn().unwrap();
    assert_eq!(refusal(&mut stream).await, io::ErrorKind::PermissionDenied);
    child.wait().unwrap();
}
