"""Splits an encoded video into segments of a second or more: {"encoded_path": PATH} in,
{"segments": [PATH, …]} out.

Needs ffmpeg. Running it twice on the same video is safe: the folder of segments appears
under its name only when it is whole.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Reads the instructions, splits, and prints what to merge over them."""
    instructions = json.load(sys.stdin)
    encoded = Path(instructions["encoded_path"])
    folder = encoded.with_name(encoded.name.removesuffix(".encoded.mp4") + ".segments")
    # A job's id is whatever its client chose: never a part of a path as it is.
    job = hashlib.sha256(os.environ.get("CARBONTUBE_JOB_ID", "none").encode()).hexdigest()[:32]
    partial = folder.with_name(f".{folder.name}.{job}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(encoded), "-c", "copy"]
    command += ["-f", "segment", "-segment_time", "1", "-reset_timestamps", "1"]
    subprocess.run([*command, str(partial / "segment-%03d.mp4")], check=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    segments = sorted(str(segment) for segment in folder.iterdir())
    print(f"split {encoded.name}: {len(segments)} segments", file=sys.stderr)
    print(json.dumps({"segments": segments}))


if __name__ == "__main__":
    main()
