//! What benchmarks measure with: the bare cryptography on this machine now, CPU time of processes, medians.

use crate::forge::{Key, decode};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use std::{path::PathBuf, process::Command};

/// ES256 on this machine now.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    /// One verification, in microseconds of CPU time.
    pub verify_us: f64,
    /// One signature, in microseconds of CPU time.
    pub sign_us: f64,
}

impl Floor {
    /// Measures it, on this thread.
    pub fn measure() -> Self {
        let key = Key::es256();
        let message = [7_u8; 512];
        let signature = key.sign(&message);
        let jwk = key.jwk();
        let [x, y] = ["x", "y"].map(|name| decode(jwk[name].as_str().unwrap()));
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [&[4], &x[..], &y[..]].concat());
        Self {
            verify_us: microseconds(|| public.verify(&message, &signature).unwrap()),
            sign_us: microseconds(|| drop(key.sign(&message))),
        }
    }
}

/// User and system time of a process so far, in seconds (proc(5): fields 14 and 15, in ticks of 10 ms).
pub fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / 100.0
}

/// CPU time of all threads of a process that run now, in seconds: finer than [`cpu_seconds`], but what ended is not counted.
pub fn cpu_seconds_of_threads(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

/// Memory of a process that is in RAM, in KiB (proc(5)).
pub fn resident_kib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The value that this part of all does not exceed.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The median; `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Builds the program in the profile of the benchmark that asks. Nothing happens if it is there already.
pub fn build_the_program() {
    if std::env::var_os("DEPUTIZE_BIN").is_some() {
        return;
    }
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    let built =
        Command::new(env!("CARGO")).args(["build", "--locked", "-p", "deputize"]).args(profile).status();
    assert!(built.unwrap().success(), "the program does not build");
}

/// The profile of this build.
pub fn profile() -> &'static str {
    if cfg!(debug_assertions) { "dev" } else { "release" }
}

/// Saves what a benchmark found, as `target/bench/NAME.json`.
pub fn save(name: &str, result: &serde_json::Value) -> PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, format!("{result:#}\n")).unwrap();
    file
}

/// CPU time of this thread for one call.
fn microseconds(mut call: impl FnMut()) -> f64 {
    let before = thread_cpu_nanoseconds();
    for _ in 0..CALLS {
        call();
    }
    (thread_cpu_nanoseconds() - before) / 1e3 / f64::from(CALLS)
}

/// The first field of the scheduler's statistics is the time on a CPU.
fn thread_cpu_nanoseconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

const CALLS: u32 = 2000;
