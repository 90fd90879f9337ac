"""Makes test videos with ffmpeg: make_videos.py FOLDER [COUNT] [SECONDS]."""

import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Makes the videos and prints their paths."""
    folder = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        video = folder / f"video{number}.mp4"
        source = f"testsrc2=size=320x180:rate=25:duration={seconds}"
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", source]
        command += ["-c:v", "mpeg4", str(video)]
        subprocess.run(command, check=True)
        print(video)


if __name__ == "__main__":
    main()
