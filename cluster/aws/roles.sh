#!/usr/bin/env bash
# Make the two roles of cluster/gpu.yaml, each with an instance profile of its name: `cluster/aws/roles.sh YOUR-BUCKET STORE`.
# The store is then s3://YOUR-BUCKET/STORE or anything below. Run it again for each further store, or after a change of a policy.
#
# Both roles read and write the store, and read photos/ and environments/ of the bucket. The head may besides start machines
# with the tag of this cluster, end those, give them the worker's role, and write environments/. Nothing else is allowed: workers
# have no right to any machine. Names of all keys of the bucket can be listed (S3 tells a missing key from a forbidden
# one only to who may list), so give the studies a bucket of their own.
set -euo pipefail
cd "$(dirname "$0")"
usage="name the bucket and the store: cluster/aws/roles.sh YOUR-BUCKET ablation"
bucket=${1:?$usage}
store=${2:?$usage}
account=$(aws sts get-caller-identity --query Account --output text)
trust='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}'

give() {  # ROLE NAME FILE
  local policy
  policy=$(sed "s#YOUR-ACCOUNT#$account#g; s#YOUR-BUCKET#$bucket#g; s#YOUR-STORE#$store#g" "$3")
  aws iam put-role-policy --role-name "$1" --policy-name "$2" --policy-document "$policy"
}

for role in scale-ray-head scale-ray-worker; do
  aws iam get-role --role-name $role > /dev/null 2>&1 ||
    aws iam create-role --role-name $role --assume-role-policy-document "$trust" > /dev/null
  if ! aws iam get-instance-profile --instance-profile-name $role > /dev/null 2>&1; then
    aws iam create-instance-profile --instance-profile-name $role > /dev/null
    aws iam add-role-to-instance-profile --instance-profile-name $role --role-name $role
  fi
  give $role "store-${store//\//-}" store_policy.json
  give $role nodes node_policy.json
  aws iam delete-role-policy --role-name $role --policy-name store 2> /dev/null || true  # of old: the whole bucket
done
give scale-ray-head workers head_policy.json

# AWS asks for this role at the account's first spot machine, and the head may not make it.
spot=$(aws iam list-roles --path-prefix /aws-service-role/spot.amazonaws.com/ --query 'Roles[].RoleName' --output text)
test -n "$spot" || aws iam create-service-linked-role --aws-service-name spot.amazonaws.com > /dev/null
