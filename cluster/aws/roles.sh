#!/usr/bin/env bash
# Make the two roles of cluster/gpu.yaml, each with an instance profile of its name: `cluster/aws/roles.sh YOUR-BUCKET`.
# The head may start machines, end those of this cluster, and nothing else of EC2. Workers reach the store alone.
set -euo pipefail
cd "$(dirname "$0")"
bucket=${1:?name the bucket of the store: cluster/aws/roles.sh YOUR-BUCKET}
account=$(aws sts get-caller-identity --query Account --output text)
trust='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}'

policy() {
  sed "s/YOUR-ACCOUNT/$account/g; s/YOUR-BUCKET/$bucket/g" "$1"
}

for role in scale-ray-head scale-ray-worker; do
  aws iam create-role --role-name $role --assume-role-policy-document "$trust" > /dev/null
  aws iam put-role-policy --role-name $role --policy-name store --policy-document "$(policy store_policy.json)"
  aws iam create-instance-profile --instance-profile-name $role > /dev/null
  aws iam add-role-to-instance-profile --instance-profile-name $role --role-name $role
done
aws iam put-role-policy --role-name scale-ray-head --policy-name workers --policy-document "$(policy head_policy.json)"
