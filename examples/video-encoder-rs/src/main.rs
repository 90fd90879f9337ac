//! Tina's pipeline as one program: `tinas-pipeline phase encode-video --concurrency=4`.

use async_process::Command;
use carbontube::prelude::*;
use serde_json::{Value, json};

/// Runs ffmpeg on the file that `reads` names, and names what it made `writes`.
struct Ffmpeg {
    reads: &'static str,
    writes: &'static str,
    suffix: &'static str,
    options: &'static str,
}

impl Phase for Ffmpeg {
    type Instructions = Value;
    type Output = Value;

    async fn execute(&self, job: &JobContext, video: Value) -> Result<Value, PhaseError> {
        let input = video[self.reads].as_str().ok_or_else(|| {
            PhaseError::fatal(format!("{} is not in the instructions", self.reads))
        })?;
        let output = format!("{input}{}", self.suffix);
        job.log(LogLevel::Info, format!("{input} becomes {output}"));
        let ended = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y", "-i", input])
            .args(self.options.split(' '))
            .arg(&output)
            .kill_on_drop(true) // when the attempt is cancelled or takes too long
            .output()
            .await?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            return Err(PhaseError::new(format!("ffmpeg: {}", ended.status)).with_detail(said));
        }
        Ok(json!({ self.writes: output }))
    }
}

fn main() -> std::process::ExitCode {
    let encode = Ffmpeg {
        reads: "video_path",
        writes: "encoded_path",
        suffix: ".encoded.mkv",
        options: "-c:v mpeg4 -g 25",
    };
    let split = Ffmpeg {
        reads: "encoded_path",
        writes: "segments",
        suffix: ".%03d.mkv",
        options: "-c copy -f segment -segment_time 1 -reset_timestamps 1",
    };
    let pipeline = Pipeline::new("video-encoder-pipeline");
    carbontube::run([pipeline
        .phase("encode-video", encode)
        .phase("split-video", split)])
}
