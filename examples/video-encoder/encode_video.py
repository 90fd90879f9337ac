"""Encodes a video: {"video_path": PATH} in, {"encoded_path": PATH} out.

Needs ffmpeg. Running it twice on the same video is safe: the encoded file appears
under its name only when it is whole.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path


def duration_seconds(video: Path) -> float:
    """How long the video is, in seconds."""
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]
    probe = subprocess.run([*command, str(video)], check=True, stdout=subprocess.PIPE, text=True)
    return float(probe.stdout)


def encode(video: Path, target: Path) -> None:
    """Encodes with H.264 and reports progress on stderr."""
    total = duration_seconds(video)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(video)]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-force_key_frames", "expr:gte(t,n_forced)"]
    command += ["-progress", "pipe:1", "-f", "mp4", str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            key, _, value = line.strip().partition("=")
            if key == "out_time_us" and value.isdigit():
                done = min(int(value) / 1e6 / total, 1.0)
                print(f"::progress {done:.3f} encoding", file=sys.stderr, flush=True)
    if process.returncode != 0:
        sys.exit(f"ffmpeg ended with status {process.returncode}")


def main() -> None:
    """Reads the instructions, encodes, and prints what to merge over them."""
    instructions = json.load(sys.stdin)
    video = Path(instructions["video_path"])
    if not video.is_file():
        sys.exit(f"{video} is not a file")
    encoded = video.with_name(f"{video.stem}.encoded.mp4")
    # A job's id is whatever its client chose: never a part of a path as it is.
    job = hashlib.sha256(os.environ.get("CARBONTUBE_JOB_ID", "none").encode()).hexdigest()[:32]
    partial = video.with_name(f".{video.stem}.{job}.partial")
    encode(video, partial)
    partial.replace(encoded)
    print(f"encoded {video.name}: {encoded.stat().st_size} bytes", file=sys.stderr)
    print(json.dumps({"encoded_path": str(encoded)}))


if __name__ == "__main__":
    main()
