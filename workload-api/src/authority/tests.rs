use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Preface, SETTINGS, and a request whose authority is the path of a socket.
fn request() -> Vec<u8> {
    let fields = [(":method", "GET"), (":authority", "/run/api.sock")];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    let mut bytes = frames::PREFACE.to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    bytes.extend(block);
    bytes
}

#[tokio::test]
async fn however_small_the_reads_the_repaired_bytes_come_out() {
    let mut outs = Vec::new();
    for size in [1, 7, 4096] {
        let (mut client, server) = tokio::io::duplex(16);
        let sent = request();
        let writer = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let (mut repaired, mut out) = (Repaired::new(server), Vec::new());
        let mut buffer = vec![0; size];
        loop {
            match repaired.read(&mut buffer).await.unwrap() {
                0 => break,
                read => out.extend_from_slice(&buffer[..read]),
            }
        }
        assert_eq!(repaired.read(&mut buffer).await.unwrap(), 0, "and stays at its end");
        // The other way nothing is touched.
        let mut client = writer.await.unwrap();
        repaired.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        outs.push(out);
    }
    assert_eq!(outs[0], outs[1]);
    assert_eq!(outs[0], outs[2]);
    let holds = |text: &str| outs[0].windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(frames::AUTHORITY) && !holds("/run/api.sock"));
}

#[tokio::test]
async fn what_is_kept_back_comes_out_at_the_end() {
    let sent = request();
    for length in 0..sent.len() {
        let (mut client, server) = tokio::io::duplex(4096);
        client.write_all(&sent[..length]).await.unwrap();
        drop(client);
        let mut out = Vec::new();
        Repaired::new(server).read_to_end(&mut out).await.unwrap();
        assert_eq!(out, &sent[..length]);
    }
}
