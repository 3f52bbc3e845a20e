"""Makes the archives that a GPU machine without network needs, in three transfers of at most 64 MiB.

    python -m benchmarks.gpu.bundle --output runs/gpu --python python3.12 [--data data/entity_questions.zip]

Made for a machine that has the Python version of --python and, for it, torch (CUDA 13), transformers, peft, pyarrow,
safetensors, pandas, scipy, scikit-learn, matplotlib, opencv-python-headless and what these need; `--add NAME ...` adds
packages of requirements/gpu.lock that it lacks. packages.txt lists what is always there.

| folder | content |
|---|---|
| p0 | the project, Ray, DeepSpeed and small packages, the facts of --data |
| p1 | vLLM of the lock with machine code for one architecture (--architecture, 90 for H100, H200), its libraries |
| p2 | an older vLLM (--fallback), for a machine on which that one does not start |

Needs a package index for pip, and the programs git, xz, strip, tar and unzip. Wheels below --scratch
are used again. Takes minutes; a lower --xz is faster and packs less.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.gpu.call import PROJECT
from benchmarks.gpu.machine_code import blanked

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "gpu.lock"
LIMIT_MIB = 64
# What imports of vLLM, Ray, DeepSpeed and sftlab load, and a machine with torch and transformers may lack.
PACKAGES = Path(__file__).with_name("packages.txt")
OF_FALLBACK = [
    "distro",
    "diskcache",
    "openai-harmony",
    "httpx-sse",
]  # newer versions of vLLM need none of them
LARGE = ("openai", "openai_harmony", "llguidance", "xgrammar", "tvm_ffi")  # travel with vLLM
# Parts that no program here loads.
VLLM_LEFT_OUT = (
    r"_vllm_fa2_C", r"_moe_C_stable", r"_qutlass", r"_flashmla_", r"_flashkda", r"_deepselect", r"/vllm/vllm-rs$",
    r"third_party/(deep_gemm|fmha_sm100)$", r"_rust_", r"\.cuh?$", r"vllm_flash_attn/cute$", r"\.html$",
    r"fused_moe/configs$", r"quantization/utils/configs$", r"/vllm/benchmarks$",
)  # fmt: skip
RAY_LEFT_OUT = (r"/ray/(jars|rllib|llm|cpp)$", r"/dashboard/client$", r"/tests$", r"\.map$")
KERNELS = "vllm/_C_stable_libtorch.abi3.so"
ATTENTION = "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so"


def locked(text: str) -> dict[str, str]:
    """Versions by name, of a lock file."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", text, re.MULTILINE))


def requirements(names: Iterable[str], versions: dict[str, str]) -> list[str]:
    """NAME==VERSION where the lock has the package."""
    return [f"{name}=={versions[name]}" if name in versions else name for name in names]


def copied(source: Path, target: Path, left_out: Sequence[str]) -> None:
    """Copy a folder without the files and folders whose paths match a pattern."""
    patterns = [re.compile(one) for one in (*left_out, r"__pycache__")]

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if any(one.search(f"{folder}/{name}") for one in patterns)]

    shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)


class Maker:
    """Fetches packages below `scratch` and packs archives below `output`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.scratch: Path = options.scratch
        self.versions = locked(LOCK.read_text())
        self.pip = [options.python, "-m", "pip", "--quiet", "--disable-pip-version-check"]

    def unpacked(self, name: str, version: str) -> Path:
        """The content of a package's wheel."""
        wheels, folder = self.scratch / "wheels", self.scratch / "unpacked" / f"{name}-{version}"
        if not list(wheels.glob(f"{name}-{version}-*.whl")):
            fetch = ["download", "--no-deps", "--only-binary=:all:", "-d", str(wheels), f"{name}=={version}"]
            subprocess.run([*self.pip, *fetch], check=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (wheel,) = wheels.glob(f"{name}-{version}-*.whl")
        subprocess.run(["unzip", "-q", str(wheel), "-d", str(folder)], check=True)  # keeps modes of files
        return folder

    def packages(self) -> Path:
        """A folder with Ray, DeepSpeed and all small packages."""
        site = self.scratch / "packages"
        shutil.rmtree(site, ignore_errors=True)
        names = requirements([*PACKAGES.read_text().split(), *OF_FALLBACK, *self.options.add], self.versions)
        install = ["install", "--no-deps", "--no-compile", "--only-binary=:all:", "--target", str(site)]
        subprocess.run([*self.pip, *install, *names], check=True)
        for extra in ("bin", "include", "share"):
            shutil.rmtree(site / extra, ignore_errors=True)
        ray = self.unpacked("ray", self.versions["ray"])
        for folder in (ray / "ray", ray / f"ray-{self.versions['ray']}.dist-info"):
            copied(folder, site / folder.name, RAY_LEFT_OUT)
        # DeepSpeed has no wheel; it is Python alone, as this environment has it.
        found = importlib.metadata.distribution("deepspeed")
        if found.version != self.versions["deepspeed"]:
            sys.exit(
                f"DeepSpeed {found.version} is installed here, the lock has {self.versions['deepspeed']}"
            )
        for name in ("deepspeed", f"deepspeed-{found.version}.dist-info"):
            copied(Path(str(found.locate_file(name))), site / name, (r"deepspeed/ops/csrc$",))
        strip(site)
        return site

    def vllm(self, version: str) -> Path:
        """A folder with vLLM, whose libraries hold machine code for one architecture."""
        site = self.scratch / f"vllm-{version}"
        shutil.rmtree(site, ignore_errors=True)
        wheel = self.unpacked("vllm", version)
        for folder in (wheel / "vllm", wheel / f"vllm-{version}.dist-info"):
            copied(folder, site / folder.name, VLLM_LEFT_OUT)
        for name in (KERNELS, ATTENTION):
            file = site / name
            file.write_bytes(blanked(file.read_bytes(), self.options.architecture))
        strip(site)
        return site

    def pack(self, target: str, root: Path, names: Sequence[str], left_out: Sequence[str] = ()) -> None:
        """Archive files and folders of `root`."""
        path: Path = self.options.output / target
        path.parent.mkdir(parents=True, exist_ok=True)
        excluded = [word for one in ("__pycache__", *left_out) for word in ("--exclude", one)]
        command = ["tar", "-C", str(root), "--sort=name", *excluded, "-cf", "-", *names]
        with path.open("wb") as file, subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
            subprocess.run(["xz", f"-{self.options.xz}", "-c"], stdin=tar.stdout, stdout=file, check=True)
        if tar.returncode:
            sys.exit(f"tar ended with {tar.returncode} for {path}")
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB", flush=True)

    def pack_vllm(self, part: str, version: str) -> None:
        site = self.vllm(version)
        names = sorted(path.name for path in site.iterdir())
        self.pack(f"{part}/vllm-{version}.tar.xz", site, names, [ATTENTION])
        self.pack(f"{part}/vllm-{version}-attention.tar.xz", site, [ATTENTION])


def strip(site: Path) -> None:
    """Take symbols out of libraries and of Ray's programs."""
    for file in site.rglob("*"):
        if file.is_file() and (".so" in file.name or file.parent.name in ("raylet", "gcs")):
            subprocess.run(["strip", "--strip-unneeded", str(file)], check=False, capture_output=True)


def project_files() -> list[str]:
    """Files under version control that the programs need."""
    parts = ["platform", "tests", "benchmarks", "jobs", "pyproject.toml"]
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", *parts], check=True, capture_output=True, text=True
    )
    return listed.stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--scratch", type=Path, help="default: OUTPUT/scratch")
    parser.add_argument("--python", default="python3.12", help="Python of the version of the GPU machine")
    parser.add_argument("--data", type=Path, help="zip of EntityQuestions")
    parser.add_argument("--add", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--architecture", type=int, default=90)
    parser.add_argument("--fallback", default="0.25.1", help="older version of vLLM")
    parser.add_argument("--xz", type=int, default=7)
    options = parser.parse_args()
    options.scratch = options.scratch or options.output / "scratch"
    for part in ("p0", "p1", "p2"):
        shutil.rmtree(options.output / part, ignore_errors=True)
    maker = Maker(options)
    maker.pack(f"p0/{PROJECT}", ROOT, project_files())
    if options.data:
        shutil.copy(options.data, options.output / "p0" / options.data.name)
    site = maker.packages()
    names = sorted(path.name for path in site.iterdir())
    maker.pack("p0/packages.tar.xz", site, [name for name in names if name not in LARGE])
    maker.pack("p1/libraries.tar.xz", site, [name for name in names if name in LARGE])
    maker.pack_vllm("p1", maker.versions["vllm"])
    maker.pack_vllm("p2", options.fallback)
    for part in ("p0", "p1", "p2"):
        size = sum(file.stat().st_size for file in (options.output / part).iterdir()) / 2**20
        print(f"{part}: {size:.1f} MiB", flush=True)
        if size > LIMIT_MIB:
            sys.exit(f"{part} is over {LIMIT_MIB} MiB; raise --xz, or add fewer packages")


if __name__ == "__main__":
    main()
