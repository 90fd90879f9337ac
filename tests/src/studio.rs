//! A small cluster with a web interface in front of it, for what is seen in a browser:
//! three phases of shell, one of which fails on broken clips until they are mended.

use std::path::Path;

use serde_json::json;

use crate::{Process, run, wait_until};

/// The pipeline's name.
pub const PIPELINE: &str = "video-encoder-pipeline";
/// Its phases in order.
pub const PHASES: [&str; 3] = ["split-video", "encode-video", "store-video"];

const FILE: &str = r#"
[[pipeline]]
name = "video-encoder-pipeline"
phases = ["split-video", "encode-video", "store-video"]

[phase.split-video]
command = ["/bin/sh", "-c", "cat >/dev/null; echo '{\"parts\": 4}'"]
attempts = 1

# A clip whose instructions say "broken" fails until there is a file "mended" beside it.
[phase.encode-video]
command = ["/bin/sh", "-c", '''
read -r clip
echo "encoding $clip" >&2
echo "::progress 0.5 half of the frames" >&2
case "$clip" in
*latin*) printf 'the title is \350t\351 and \377\376\n' >&2; printf 'caf\351\n' >&2; exit 5 ;;
*broken*) test -e mended || { echo "cannot open the clip: no such file" >&2; exit 3; } ;;
*codec*) echo "codec h267 is not supported" >&2; exit 4 ;;
esac
echo '{"encoded": true}'
''']
attempts = 1

[phase.store-video]
command = ["/bin/sh", "-c", "cat >/dev/null; echo '{\"stored\": true}'"]
attempts = 1
"#;

/// The running cluster.
pub struct Studio {
    /// Where the pipeline file and the journal are.
    pub folder: tempfile::TempDir,
    /// The manager.
    pub manager: Process,
    /// The workers, by phase: one for each of [`PHASES`], then a second one that encodes.
    pub workers: Vec<Process>,
    /// The web interface.
    pub web: Process,
}

impl Studio {
    /// After how much silence a worker is lost.
    pub const WORKER_TIMEOUT_US: u64 = 2_000_000;

    /// Starts it all, with workers that are lost after two seconds of silence; `more` goes
    /// to `carbontube web`.
    pub fn start(more: &[&str]) -> Studio {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("studio.toml"), FILE).expect("a file can be written");
        let manager = Process::start(
            folder.path(),
            &[
                "pipeline",
                "studio.toml",
                PIPELINE,
                "--pull-bind=tcp://127.0.0.1",
                "--storage=sled:journal",
                "--worker-timeout=2s",
            ],
        );
        let api = format!("--api-connect={}", manager.address("api"));
        let mut arguments = vec!["web", "--port=0", &api];
        arguments.extend(more);
        let web = Process::start(folder.path(), &arguments);
        let mut studio = Studio {
            folder,
            manager,
            workers: Vec::new(),
            web,
        };
        for phase in PHASES.into_iter().chain([PHASES[1]]) {
            studio.add_worker(phase);
        }
        studio
    }

    /// Starts another worker.
    pub fn add_worker(&mut self, phase: &str) {
        let worker = Process::start(
            self.folder.path(),
            &[
                "phase".to_owned(),
                "studio.toml".to_owned(),
                phase.to_owned(),
                "--concurrency=2".to_owned(),
                format!("--push-connect={}", self.manager.address("pull")),
                format!("--pub-connect={}", self.manager.address("sub")),
            ],
        );
        self.workers.push(worker);
    }

    /// The web interface's address, without a slash at the end.
    pub fn address(&self) -> String {
        let url = self.web.told("url").expect("web tells its address");
        url.trim_end_matches('/').to_owned()
    }

    /// The first worker with a status, as the web interface tells it.
    pub fn worker_with(&self, status: &str) -> serde_json::Value {
        let address = format!("{}/api/v1/pipelines/{PIPELINE}/workers", self.address());
        wait_until(&format!("a worker that is {status}"), || {
            let mut answer = ureq::get(&address).call().ok()?;
            let all: serde_json::Value = answer.body_mut().read_json().ok()?;
            let mut workers = all["workers"].as_array()?.iter();
            workers.find(|worker| worker["status"] == status).cloned()
        })
    }

    /// Enqueues so many good clips and waits until they are accepted.
    pub fn enqueue(&self, clips: usize) {
        let lines = (0..clips).map(|number| json!({"clip": format!("/media/clip-{number}.mp4")}));
        self.enqueue_file(&lines.map(|line| format!("{line}\n")).collect::<String>());
    }

    /// Enqueues one clip under a name.
    pub fn enqueue_one(&self, id: &str, instructions: &serde_json::Value) {
        let line = json!({"id": id, "instructions": instructions});
        self.enqueue_file(&format!("{line}\n"));
    }

    fn enqueue_file(&self, lines: &str) {
        let path = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(path.path(), lines).expect("a file can be written");
        let path: &Path = path.path();
        let arguments = [
            "enqueue".to_owned(),
            self.manager.address("api"),
            PIPELINE.to_owned(),
            "--file".to_owned(),
            path.display().to_string(),
        ];
        run(self.folder.path(), &arguments).success();
    }
}
