//! Tina's pipeline on real videos, with ffmpeg and ffprobe, and the original's commands.

use std::path::{Path, PathBuf};
use std::process::Command;

use carbontube_tests::{Process, build, run, run_program, wait_until, workspace};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Whether the tools are here; says so when they are not, and insists when it must.
fn tools() -> bool {
    for tool in ["ffmpeg", "ffprobe", "python3"] {
        let version = if tool == "python3" {
            "--version"
        } else {
            "-version"
        };
        let found = Command::new(tool)
            .arg(version)
            .output()
            .is_ok_and(|output| output.status.success());
        if !found {
            let all = std::env::var_os("CARBONTUBE_REQUIRE_ALL").is_some_and(|value| value == "1");
            assert!(!all, "{tool} is missing and CARBONTUBE_REQUIRE_ALL=1");
            println!("skipped: {tool} is missing");
            return false;
        }
    }
    true
}

/// A folder with the example and a video of three seconds.
fn studio() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let example = workspace().join("examples/video-encoder");
    for entry in std::fs::read_dir(example).expect("the example is there") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let name = path.file_name().expect("a file has a name");
            std::fs::copy(&path, folder.path().join(name)).expect("a copy");
        }
    }
    let made = run_program(
        folder.path(),
        Path::new("python3"),
        &["make_videos.py", "videos", "1", "3"],
    )
    .success();
    let video = folder.path().join(made.stdout.trim());
    (folder, video)
}

fn seconds(video: &Path) -> f64 {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-show_entries",
            "format=duration",
            "-of",
            "csv=p=0",
        ])
        .arg(video)
        .output()
        .expect("ffprobe starts");
    assert!(output.status.success(), "{}: {output:?}", video.display());
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().expect("a duration")
}

/// Every segment is a video of its own, and together they are as long as the original.
#[track_caller]
fn check_segments(video: &Path, segments: &[PathBuf]) {
    assert!(segments.len() >= 2, "{segments:?}");
    let total: f64 = segments.iter().map(|segment| seconds(segment)).sum();
    let whole = seconds(video);
    assert!(
        (total - whole).abs() < 0.3,
        "{total} s of {whole} s: {segments:?}"
    );
}

fn segments_of(result: &Value) -> Vec<PathBuf> {
    let list = result["segments"].as_array().expect("a list of segments");
    let paths = list
        .iter()
        .map(|path| PathBuf::from(path.as_str().expect("a path")));
    paths.collect()
}

fn enqueue_and_check(folder: &Path, api: &str, video: &Path) {
    let instructions = json!({ "video_path": video }).to_string();
    let finished = run(
        folder,
        &[
            "enqueue",
            api,
            "video-encoder-pipeline",
            &instructions,
            "--wait",
        ],
    )
    .success();
    check_segments(video, &segments_of(&finished.json()));
}

#[test]
fn original_command_lines_encode_and_split_a_video() {
    if !tools() {
        return;
    }
    let (folder, video) = studio();
    let manager = Process::start(
        folder.path(),
        &[
            "pipeline",
            "tinas-pipeline.toml",
            "video-encoder-pipeline",
            "--pull-bind=tcp://127.0.0.1",
            "--sub-bind=tcp://127.0.0.1",
        ],
    );
    let push = format!("--push-connect={}", manager.address("pull"));
    let publish = format!("--pub-connect={}", manager.address("sub"));
    let _phases = ["encode-video", "split-video"].map(|phase| {
        Process::start(
            folder.path(),
            &[
                "phase",
                "tinas-pipeline.toml",
                phase,
                "--concurrency=4",
                "--pull-bind=tcp://127.0.0.1",
                &push,
                &publish,
            ],
        )
    });
    enqueue_and_check(folder.path(), &manager.address("api"), &video);

    // The original's enqueue, by the pull address: taken, but not confirmed.
    let second = folder.path().join("videos/second.mp4");
    std::fs::copy(&video, &second).expect("a copy");
    let instructions = json!({ "video_path": second }).to_string();
    let pull = manager.address("pull");
    let finished = run(
        folder.path(),
        &["enqueue", &pull, "video-encoder-pipeline", &instructions],
    );
    assert_eq!(finished.code, Some(4), "{finished:#?}");
    let folder_of_segments = folder.path().join("videos/second.segments");
    wait_until("segments of the second video", || {
        folder_of_segments.is_dir().then_some(())
    });
    let mut segments: Vec<PathBuf> = std::fs::read_dir(folder_of_segments)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    segments.sort();
    check_segments(&second, &segments);
}

#[test]
fn streamer_and_forwarder_relay_between_workers_and_manager() {
    if !tools() {
        return;
    }
    let (folder, video) = studio();
    let streamer = Process::start(
        folder.path(),
        &[
            "streamer",
            "--pull=tcp://127.0.0.1",
            "--push=tcp://127.0.0.1",
        ],
    );
    let forwarder = Process::start(
        folder.path(),
        &[
            "forwarder",
            "--subscriber=tcp://127.0.0.1",
            "--publisher=tcp://127.0.0.1",
            "--subscriber-hwm=64",
            "--publisher-hwm=64",
        ],
    );
    let pull = format!("--pull-connect={}", streamer.address("push"));
    let sub = format!("--sub-connect={}", forwarder.address("publisher"));
    let manager = Process::start(
        folder.path(),
        &[
            "pipeline",
            "tinas-pipeline.toml",
            "video-encoder-pipeline",
            "--pull-bind=tcp://127.0.0.1",
            "--sub-bind=tcp://127.0.0.1",
            &pull,
            &sub,
        ],
    );
    let push = format!("--push-connect={}", streamer.address("pull"));
    let publish = format!("--pub-connect={}", forwarder.address("subscriber"));
    let _phases = ["encode-video", "split-video"].map(|phase| {
        Process::start(
            folder.path(),
            &[
                "phase",
                "tinas-pipeline.toml",
                phase,
                "--pull-bind=tcp://127.0.0.1",
                &push,
                &publish,
            ],
        )
    });
    enqueue_and_check(folder.path(), &manager.address("api"), &video);
}

#[test]
fn rust_program_runs_the_same_pipeline() {
    if !tools() {
        return;
    }
    let (folder, video) = studio();
    let program = build("video-encoder-rs", "tinas-pipeline");
    let bundle = Process::start_program(
        folder.path(),
        &program,
        &[
            "bundle",
            "video-encoder-pipeline",
            "--storage=memory:",
            "--pull-bind=tcp://127.0.0.1",
        ],
    );
    let instructions = json!({ "video_path": video }).to_string();
    let api = bundle.address("api");
    let finished = run_program(
        folder.path(),
        &program,
        &[
            "enqueue",
            &api,
            "video-encoder-pipeline",
            &instructions,
            "--wait",
        ],
    )
    .success();
    let pattern = finished.json()["segments"]
        .as_str()
        .expect("a pattern")
        .to_owned();
    let segments: Vec<PathBuf> = (0..100)
        .map(|number| PathBuf::from(pattern.replace("%03d", &format!("{number:03}"))))
        .take_while(|path| path.is_file())
        .collect();
    check_segments(&video, &segments);
}
