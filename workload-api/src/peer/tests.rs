//! Real processes: this program starts itself again and plays them.

pub(crate) mod actor;

use super::*;
use actor::Stage;

#[tokio::test]
async fn who_connected_is_known_until_it_ends() {
    let stage = Stage::set();
    let mut actor = stage.start("connect; send:hello; await");
    let stream = stage.accept().await;
    let peer = Peer::of(&stream).unwrap();
    assert_eq!(peer.pid(), actor.pid());
    assert_eq!((peer.uid(), peer.gid()), stage.own_ids());
    assert!(!peer.is_gone());
    actor.go_on();
    peer.gone().await;
    assert!(peer.is_gone());
    actor.reap();
    assert!(peer.is_gone(), "its number may be another's now");
}

#[tokio::test]
async fn a_zombie_is_gone_and_so_is_who_left_before_the_question() {
    let stage = Stage::set();
    let mut actor = stage.start("connect; await");
    let stream = stage.accept().await;
    let peer = Peer::of(&stream).unwrap();
    actor.kill_without_reaping();
    peer.gone().await;
    assert!(fs::exists(format!("/proc/{}/stat", actor.pid())).unwrap(), "a zombie still has its number");
    assert_eq!(Peer::of(&stream).unwrap_err(), NotAttested::Gone);
    actor.reap();
    assert_eq!(Peer::of(&stream).unwrap_err(), NotAttested::Gone);
}

#[tokio::test]
async fn many_wait_for_the_end() {
    let stage = Stage::set();
    let mut actor = stage.start("connect; await");
    let stream = stage.accept().await;
    let peer = std::sync::Arc::new(Peer::of(&stream).unwrap());
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let peer = std::sync::Arc::clone(&peer);
            tokio::spawn(async move { peer.gone().await })
        })
        .collect();
    actor.go_on();
    for one in waiting {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn an_older_kernels_way_takes_who_is_old_enough_and_nobody_who_is_gone() {
    let stage = Stage::set();
    let mut actor = stage.start("connect; await");
    let stream = stage.accept().await;
    let ids = (actor.pid(), 1, 2);
    let young = NotAttested::Unavailable("the process has only just begun: connect again");
    let peer = loop {
        match Peer::found(ids) {
            Ok(peer) => break peer,
            Err(error) => assert_eq!(error, young),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((peer.pid(), peer.uid(), peer.gid()), ids);
    actor.kill_without_reaping();
    peer.gone().await;
    assert_eq!(Peer::found(ids).unwrap_err(), NotAttested::Gone, "a zombie");
    actor.reap();
    assert_eq!(Peer::found(ids).unwrap_err(), NotAttested::Gone);
    assert_eq!(Peer::found((0, 1, 2)).unwrap_err(), ELSEWHERE);
    drop(stream);
}

#[tokio::test]
async fn a_process_of_another_process_namespace_is_refused() {
    let own = std::process::id().cast_signed();
    let handle = || pidfd_open(Pid::from_raw(own).unwrap(), PidfdFlags::empty()).unwrap();
    assert_eq!(Peer::held((0, 0, 0), handle()).unwrap_err(), ELSEWHERE);
    // The /proc that we see counts otherwise than the kernel does for us.
    let otherwise = NotAttested::Foreign("/proc belongs to another process namespace");
    assert_eq!(Peer::held((own + 1, 0, 0), handle()).unwrap_err(), otherwise);
    assert_eq!(Peer::held((own, 0, 0), handle()).unwrap().pid(), own);
}

#[test]
fn handles_tell_their_process() {
    let info =
        |pid: &str| format!("pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t9\nPid:\t{pid}\nNSpid:\t{pid}\n");
    assert_eq!(pid_of_handle(&info("4711")), Some(4711));
    assert_eq!(pid_of_handle(&info("-1")), Some(-1));
    assert_eq!(pid_of_handle(&info("0")), Some(0));
    assert_eq!(pid_of_handle(&info("x")), None);
    assert_eq!(pid_of_handle("pos:\t0\nNSpid:\t4711\n"), None);
}

#[test]
fn age_is_told_past_any_name() {
    let stat = |name: &str| {
        format!(
            "77 ({name}) S 1 77 77 0 -1 4194304 90 0 0 0 0 0 0 0 20 0 1 0 123456 10 20 18446744073709551615"
        )
    };
    for name in ["app", "a b", ") S 1 2 3 4 5 6 7 8 9 9 9 9 9 9 9 9 9 9 9 9", "((("] {
        assert_eq!(age_ticks(&stat(name), "1300.25 99.00\n"), Some(6569), "{name}");
    }
    assert_eq!(age_ticks(&stat("app"), "1.00 0.00\n"), Some(0), "from the future");
    assert_eq!(age_ticks("77 (app) S 1", "1300.25 99.00\n"), None);
    assert_eq!(age_ticks(&stat("app"), "soon"), None);
}
