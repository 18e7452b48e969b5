#!/usr/bin/env bash
# Make the service account of the workers of cluster/gcp.yaml: `cluster/gcp/worker.sh YOUR-PROJECT YOUR-BUCKET STORE`.
# It reads and writes the store, gs://YOUR-BUCKET/STORE, and reads photos/ and environments/ of the bucket. It has no right to
# any machine. Each is a managed folder of the bucket, which needs uniform access. Run it again for each further store.
set -euo pipefail
usage="name the project, the bucket and the store: cluster/gcp/worker.sh YOUR-PROJECT YOUR-BUCKET ablation"
project=${1:?$usage}
bucket=${2:?$usage}
store=${3:?$usage}
account=scale-ray-worker@$project.iam.gserviceaccount.com

give() {  # FOLDER ROLE
  gcloud storage managed-folders describe "gs://$bucket/$1" > /dev/null 2>&1 ||
    gcloud storage managed-folders create "gs://$bucket/$1"
  gcloud storage managed-folders add-iam-policy-binding "gs://$bucket/$1" --member="serviceAccount:$account" --role="$2" > /dev/null
}

gcloud iam service-accounts describe "$account" --project="$project" > /dev/null 2>&1 ||
  gcloud iam service-accounts create scale-ray-worker --project="$project"
give "$store" roles/storage.objectUser
give photos roles/storage.objectViewer
give environments roles/storage.objectViewer
