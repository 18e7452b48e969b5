"""The examples at the end of each command's help. tests/test_documents.py runs them in this order."""

from pathlib import Path
from textwrap import dedent

EXAMPLES = {
    name: dedent(text).strip()
    for name, text in {
        "": """
            scale-ray adapt --source photos/studio --target photos/phone --out result
            scale-ray compare --benchmark digits --seeds 3 --dry-run
            scale-ray fields losses
        """,
        "adapt": """
            scale-ray adapt --source photos/studio --target photos/phone --out result
            scale-ray adapt --source photos/studio --target photos/phone --out result \\
                --budget 30m --check labels.csv
            scale-ray adapt --source photos/studio --target photos/phone --out tuned \\
                --fine-tune --backbone resnet50 --set optim.steps=5000
        """,
        "train": """
            scale-ray train --root photos --source studio --target phone --frozen \\
                --backbone mobilenet_v2 --store runs/phone
            scale-ray train --root photos --source studio --target phone --losses ce
            scale-ray train --root photos --source studio --target phone --method mcc \\
                --backbone resnet50 --set optim.batch_size=16
        """,
        "ablate": """
            scale-ray ablate --benchmark digits --losses ce,ce+ssl --seeds 3 --dry-run
            scale-ray ablate --benchmark digits --axis losses.threshold=0.7,0.8,0.9
            scale-ray ablate --seeds 3 --until 1.0 --budget 2h --dry-run
            scale-ray ablate --root photos --pairs studio:phone --frozen \\
                --backbone mobilenet_v2,resnet50 --store runs/ablation
        """,
        "compare": """
            scale-ray compare --benchmark digits --seeds 3 --dry-run
            scale-ray compare --root photos --pairs studio:phone --frozen \\
                --backbone mobilenet_v2 --choose transfer_score
            scale-ray compare --benchmark digits --methods source_only,dann,scale:ce+ssl
        """,
        "auto": """
            scale-ray auto --root photos --pairs studio:phone --frozen --dry-run
            scale-ray auto --root photos --pairs studio:phone --frozen --budget 12000
        """,
        "tune": """
            scale-ray tune --benchmark digits --seeds 3 --trials 12
            scale-ray tune --benchmark digits --validator transfer_score --trials 10 \\
                --space losses.threshold=float:0.5:0.95:0.05
        """,
        "init": """
            scale-ray init mine.py
            scale-ray init phones.py --root photos --frozen
        """,
        "run": """
            scale-ray run demo --dry-run
            scale-ray run ablation --benchmark digits --seeds 1 --dry-run
            scale-ray run leaderboard --help
        """,
        "export": """
            scale-ray export runs/phone --out model
            scale-ray export runs/phone --out model --format onnx --input uint8
        """,
        "predict": """
            scale-ray predict model photos/phone --out predictions.csv
            scale-ray predict runs/phone "photos/phone/**/*.jpg" --device cpu
            scale-ray predict model s3://YOUR-BUCKET/photos --ray \\
                --out s3://YOUR-BUCKET/predictions
        """,
        "report": """
            scale-ray report runs/phone
            scale-ray report runs/phone --choose transfer_score --root photos
            scale-ray report runs/office_home --rows losses.threshold --columns losses
        """,
        "status": """
            scale-ray status runs/phone
            scale-ray status runs/phone --watch
        """,
        "forget": """
            scale-ray forget runs/phone --failed
            scale-ray forget runs/phone --stale --yes
        """,
        "track": """
            scale-ray track runs/phone --to tensorboard=runs/tensorboard
            scale-ray track s3://YOUR-BUCKET/study --study ablation-pacs \\
                --to mlflow=http://127.0.0.1:5000 --to wandb=pacs
        """,
        "fields": """
            scale-ray fields losses optim.learning_rate
            scale-ray fields --benchmark digits --frozen
        """,
        "data": """
            scale-ray data list
            scale-ray data check image_folder --root photos
        """,
        "data list": """
            scale-ray data list
        """,
        "data get": """
            scale-ray data get digits_standard Digits
            scale-ray data get digits_standard Digits --domain mnist --domain usps
        """,
        "data check": """
            scale-ray data check image_folder --root photos --all
            scale-ray data check image_folder --root photos --sheet photos.html
        """,
        "data prepare": """
            scale-ray data prepare digits
            scale-ray data prepare image_folder --root photos --resize 256
        """,
        "data push": """
            scale-ray data push runs/phone --root photos
            scale-ray data push s3://BUCKET/phone --root s3://BUCKET/photos --resize 256
            scale-ray data push s3://BUCKET/phone --root photos --as files
        """,
        "data cache": """
            scale-ray data cache
        """,
        "data clear": """
            scale-ray data clear
            scale-ray data clear --yes
        """,
        "serve": """
            scale-ray serve --own-ray
            scale-ray serve service.toml
        """,
        "submit": """
            scale-ray submit study.json --dry-run
            scale-ray submit study.json --server https://studies.example.org --wait
            scale-ray submit --slurm --nodes 2 --gpus-per-node 4 --dry-run -- \\
                ablate --benchmark digits --seeds 5 --store runs/digits
        """,
        "token": """
            scale-ray token create ann --scope submit
            scale-ray token list
        """,
        "token create": """
            scale-ray token create ann --note "Ann's laptop"
            scale-ray token create grafana --scope read --settings service.toml
        """,
        "token list": """
            scale-ray token list
        """,
        "token revoke": """
            scale-ray token revoke 3f2a91
        """,
    }.items()
}


def of_study(script: Path) -> str:
    """The examples of a file with a study of its own."""
    return dedent(f"""\
        python {script} --dry-run
        python {script} --seeds 5 --store runs/five_seeds
        python {script} --axis losses.threshold=0.7,0.8 --limit 4""")


def of_search(script: Path) -> str:
    """The examples of a file with a search of its own."""
    return dedent(f"""\
        python {script} --dry-run
        python {script} --trials 40 --validator transfer_score""")
